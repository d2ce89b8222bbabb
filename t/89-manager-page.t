#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The manager's page without script: what it shows, that nothing it shows can break it, and its
# forms, which ask once. What the script does, t/browser/manager tries in Chromium.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Digest::SHA ();
use MIME::Base64 ();

my @two = (lanes => [qw(event engine)]);

# ---- reading HTML -------------------------------------------------------------------------------

my %void = map { $_ => 1 } qw(meta link input br hr img);
my %known = map { $_ => 1 } keys %void, qw(html head title script body a header p span time main h1
    h2 form label select option button div section dl dt dd table caption thead tbody tr th td
    details summary fieldset legend strong ul li);

sub unescaped {
    my ($text) = @_;
    my %entity = (amp => '&', lt => '<', gt => '>', quot => '"', '#39' => "'");
    die "unescaped: $text\n" if $text =~ /[<>]/ || $text =~ /&(?!(?:amp|lt|gt|quot|#39);)/;
    return $text =~ s/&([^;]+);/$entity{$1}/gr;
}

# The elements of a page in their order: { tag, attributes, text (all that is inside), parent };
# dies on anything that isn't written the way the page is: all is closed, nothing unescaped.
sub elements {
    my ($html) = @_;
    my (@open, @all, %ids);
    $html =~ s/\A<!DOCTYPE html>\n// or die "no doctype\n";
    while ($html =~ /\G(?:<(\/?)([a-z][a-z0-9]*)((?:\s[^<>]*)?)>|([^<]+))/gc) {
        my ($end, $tag, $rest, $text) = ($1, $2, $3, $4);
        if (defined $text) {
            $text = unescaped($text);
            die "text outside\n" if !@open && $text =~ /\S/;
            $_->{text} .= $text for @open;
            next;
        }
        if ($end) {
            my $last = pop @open or die "</$tag> of nothing\n";
            die "</$tag> ends <$last->{tag}>\n" if $last->{tag} ne $tag;
            next;
        }
        die "<$tag>\n" if !$known{$tag};
        my %attributes;
        $rest =~ s{\G\s+([a-z-]+)(?:="([^"]*)")?}{
            die "$1 twice\n" if exists $attributes{$1};
            die "$1 in <$tag>\n" if $1 =~ /^(?:on|style$)/;
            $attributes{$1} = unescaped($2 // '');
            ''}ge;
        die "in <$tag>: $rest\n" if $rest =~ /\S/;
        die "id $attributes{id} again\n" if defined $attributes{id} && $ids{ $attributes{id} }++;
        my $element = { tag => $tag, text => '', attributes => \%attributes, parent => $open[-1] };
        push @all, $element;
        push @open, $element if !$void{$tag};
    }
    die 'not HTML: ' . substr($html, pos($html) // 0, 60) . "\n" if (pos($html) // 0) < length $html;
    die "open: @{[map { $_->{tag} } @open]}\n" if @open;
    for my $label (map { split ' ', $_->{attributes}{'aria-labelledby'} // '' } @all) {
        die "no $label\n" if !$ids{$label};
    }
    return @all;
}

# Elements of this tag, whose attributes are these.
sub those {
    my ($all, $tag, %attributes) = @_;
    return grep {
        my $element = $_;
        $element->{tag} eq $tag
            && !grep { ($element->{attributes}{$_} // '') ne $attributes{$_} } keys %attributes
    } @$all;
}

sub is_inside {
    my ($element, $other) = @_;
    for (; $element; $element = $element->{parent}) {
        return 1 if $element == $other;
    }
    return 0;
}

# The forms of a page: { verb, fields => { name => value }, buttons }.
sub forms {
    my ($all) = @_;
    return map {
        my $form = $_;
        my %fields;
        for my $element (grep { is_inside($_, $form) } @$all) {
            my ($tag, $attributes) = @$element{qw(tag attributes)};
            $fields{ $attributes->{name} } = $attributes->{value} if $tag eq 'input';
            my $select = $element->{parent};
            $fields{ $select->{attributes}{name} } = $attributes->{value}
                if $tag eq 'option' && exists $attributes->{selected};
        }
        { verb => $fields{do}, fields => \%fields }
    } those($all, 'form', method => 'post', action => 'change');
}

sub form {
    my ($all, $verb, %fields) = @_;
    my @found = grep {
        my $form = $_;
        $form->{verb} eq $verb && !grep { ($form->{fields}{$_} // '') ne $fields{$_} } keys %fields
    } forms($all);
    return $found[0] && $found[0]{fields};
}

# ---- asking the server --------------------------------------------------------------------------

sub manager {
    my ($t, $changes, @lines) = @_;
    $t->server_config('<Location /manager>', 'SetHandler rproxy-manager',
        "RProxyManager changes=$changes", @lines, '</Location>');
    return;
}

sub page {
    my ($t, $path, @headers) = @_;
    my $response = $t->get("/manager/$path", @headers);
    is($response->status, 200, "/manager/$path");
    return [elements($response->body)];
}

sub encoded { return join '&', map { s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger } @_ }

sub post {
    my ($t, $fields, @headers) = @_;
    my $body = join '&', map {
        join '=', map { s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger } $_, $fields->{$_}
    } sort keys %$fields;
    return $t->request('POST', '/manager/change', { body => $body,
        headers => ['Content-Type' => 'application/x-www-form-urlencoded', @headers] });
}

# Sends a form, which gives a question; the question's text, and its form.
sub ask {
    my ($t, $fields) = @_;
    my $response = post($t, $fields);
    is($response->status, 200, "$fields->{do}: the question");
    my $all = [elements($response->body)];
    my ($section) = those($all, 'section', id => 'confirm');
    my ($form) = forms($all);
    return ($section->{text}, { %{ $form->{fields} }, yes => 1 });
}

# Sends it, says yes, and gives what the page says then.
sub change {
    my ($t, $fields, $question) = @_;
    my ($text, $form) = ask($t, $fields);
    like($text, $question, 'says what will happen');
    my $done = post($t, $form);
    is($done->status, 303, 'done');
    like($done->header('Location'), qr{^\./\?done=\d+$}, 'and shown');
    my ($message) = those(page($t, $done->header('Location')), 'p', id => 'message');
    return $message ? $message->{text} : 'no message';
}

# What the table says of the member: { data-key => text }.
sub row {
    my ($t, $url) = @_;
    my $all = page($t, '');
    for my $row (those($all, 'tr')) {
        next if !defined $row->{attributes}{'data-member'};
        my %value = map { $_->{attributes}{'data-key'} // '' => $_->{text} }
            grep { is_inside($_, $row) } @$all;
        my ($link) = grep { is_inside($_, $row) } those($all, 'a');
        return \%value if $link->{text} eq $url;
    }
    return undef;
}

sub member_forms {
    my ($t, $url) = @_;
    my ($link) = grep { $_->{text} eq $url } those(page($t, ''), 'a');
    return page($t, $link->{attributes}{href});
}

# ---- tests --------------------------------------------------------------------------------------

my $hostile = q{unix:/run/<b>"'&amp;<script>.sock|http://localhost};

behaviour 'what is shown is escaped, wherever it comes from', @two, sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(200, [], 'x');
    $t->extra_modules(qw(authn_core auth_basic authn_anon authz_user));
    manager($t, 'on', 'AuthType Basic', 'AuthName x', 'AuthBasicProvider anon', 'Anonymous *',
        'Require valid-user');
    $t->server_config('RProxyZone z.1', '<RProxyBalancer app>',
        'RProxyMember ' . $up->url . ' zone=z.1 route=r-1',
        'RProxyMember "' . $hostile =~ s/"/\\"/r . '" backup', '</RProxyBalancer>',
        'RProxyPass / balancer://app/');
    $t->start;
    my $user = q{<i>'"&};
    my @login = (Authorization => 'Basic ' . MIME::Base64::encode("$user:x\@y", ''));

    my $q = encoded('"><script>&\'');
    my $all = page($t, "?q=$q&state=$q&done=$q", @login);
    my ($field) = those($all, 'input', name => 'q');
    is($field->{attributes}{value}, '"><script>&\'', 'the filter');
    $all = page($t, '', @login);
    like((those($all, 'p', class => 'about'))[0]{text}, qr/\Q$user\E, may change members/, 'the user');
    my ($link) = grep { $_->{text} eq $hostile } those($all, 'a');
    ok($link, 'the member');
    my $member = page($t, $link->{attributes}{href}, @login);
    is((those($member, 'h1'))[0]{text}, $hostile, 'its page');
    my $add = form($all, 'add');
    my $other = $hostile =~ s/run/tmp/r;
    my $question = post($t, { %$add, url => $other }, @login);
    my ($form) = forms([elements($question->body)]);
    is($form->{fields}{url}, $other, 'the question');
    is(post($t, { %{ $form->{fields} }, yes => 1 }, @login)->status, 303, 'done');
    $all = page($t, '', @login);
    ok((grep { $_->{text} eq $other } those($all, 'a')), 'a member that was added');
    for my $part (qw(diff journal)) {
        my ($section) = those($all, 'section', id => $part);
        like($section->{text}, qr/\Q$other\E.*\Q$user\E/s, $part);
    }
    my $bad = post($t, { %$add, url => $q, zone => '<b>' }, @login);
    is($bad->status, 400, 'an error');
    like((those([elements($bad->body)], 'p', id => 'message'))[0]{text}, qr/<b>/, 'with its cause');
};

behaviour 'headers, files and paths', @two, sub {
    my ($t) = @_;
    manager($t, 'on');
    $t->server_config('RProxyPass / http://127.0.0.1:' . $t->refused_port . '/');
    $t->start;
    my $response = $t->get('/manager/');
    is($response->status, 200, 'a page without pools');
    ok(elements($response->body), 'of HTML');
    my $policy = $response->header('Content-Security-Policy');
    like($policy, qr/(?:^|; )\Q$_\E(?:;|$)/, $_) for "default-src 'none'", "script-src 'self'",
        "style-src 'self'", "connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'";
    unlike($policy, qr/unsafe/, 'nothing inline');
    is($response->header('X-Content-Type-Options'), 'nosniff', 'types are what they are');
    is($response->header('Referrer-Policy'), 'same-origin', 'nobody else hears of it');
    is($response->header('Cache-Control'), 'no-store', 'not stored');
    is($response->header('Content-Type'), 'text/html; charset=utf-8', 'type');
    for (['app.js', 'text/javascript'], ['app.css', 'text/css']) {
        my $file = $t->get("/manager/$_->[0]");
        is($file->header('Content-Type'), "$_->[1]; charset=utf-8", $_->[0]);
        is($file->body, slurp("$FindBin::Bin/../balancer/manager/$_->[0]"), 'all of it');
        is($file->header('X-Content-Type-Options'), 'nosniff', 'type is what it is');
        is($t->get("/manager/$_->[0]", 'If-None-Match' => $file->header('ETag'))->status, 304,
            'once');
    }
    my $to = $t->get('/manager');
    is($to->status, 307, 'to the page');
    is($to->header('Location'), './manager/', 'beside it');
    is($t->get('/manager/change')->status, 303, 'an action that is loaded again');
    is($t->get('/manager/member?pool=x&member=y')->status, 404, 'no such member');
    is($t->request($_, '/manager/')->status, 405, $_) for qw(POST DELETE);
};

sub slurp {
    my ($path) = @_;
    open my $fh, '<:raw', $path or die "$path: $!\n";
    local $/;
    return scalar readline $fh;
}

# Two members and a backup, which answer.
sub pool_of_three {
    my ($t) = @_;
    my @up = map { $t->upstream->reply_with(200, [], 'x') } 1 .. 3;
    $t->server_config('RProxyZone east', '<RProxyBalancer app>',
        'RProxyMember ' . $up[0]->url . ' weight=2 zone=east',
        'RProxyMember ' . $up[1]->url . ' state=drain', 'RProxyMember ' . $up[2]->url . ' backup',
        '</RProxyBalancer>', 'RProxyPass / balancer://app/');
    return map { $_->url } @up;
}

behaviour 'the page shows members, and can be filtered', @two, sub {
    my ($t) = @_;
    manager($t, 'off');
    my @url = pool_of_three($t);
    $t->start;
    is($t->get('/')->status, 200, 'traffic') for 1 .. 3;
    wait_until('the counts', undef, sub { row($t, $url[0])->{'latency.total.p50'} =~ /\d/ });
    my $row = row($t, $url[0]);
    is($row->{$_->[0]}, $_->[1], $_->[0]) for ['state', 'up'], ['values.weight', 2],
        ['values.max', 'no limit'], ['traffic.requests', 3], ['traffic.failures', 0],
        ['traffic.in_flight', 0], ['ejections', 0];
    my $shown = sub {
        my $all = page($t, shift);
        return join ' ', map { my $url = $url[$_]; (grep { $_->{text} eq $url } those($all, 'a')) ? $_ : () }
            0 .. 2;
    };
    is($shown->(''), '0 1 2', 'all');
    is($shown->('?q=EAST'), '0', 'by zone');
    is($shown->('?q=' . ($url[2] =~ /(\d+)$/)[0]), '2', 'by port');
    is($shown->('?state=drain'), '1', 'by state');
    is($shown->('?q=app&state=up'), '0 2', 'by pool and state');
    is($shown->('?q=nowhere'), '', 'nothing is like that');
};

behaviour 'who may only look sees no forms, and can send none', @two, sub {
    my ($t) = @_;
    manager($t, q{"%{HTTP:X-Admin} == 'yes'"});
    my @url = pool_of_three($t);
    $t->start;
    my $all = page($t, '');
    is(scalar(forms($all)), 0, 'no forms');
    is(scalar(those($all, 'button')), 1, 'but the filter');
    is(scalar(forms(member_forms($t, $url[0]))), 0, 'nor for a member');
    my $form = form(page($t, '', 'X-Admin' => 'yes'), 'add');
    ok($form->{token}, 'others do');
    my $refused = post($t, { %$form, url => 'http://127.0.0.1:1', yes => 1 });
    is($refused->status, 403, 'refused');
    like((those([elements($refused->body)], 'p', id => 'message'))[0]{text}, qr/RProxyManager/,
        'says why');
};

behaviour 'each change asks once, says what it does, and does it', @two, sub {
    my ($t) = @_;
    manager($t, 'on');
    my @url = pool_of_three($t);
    $t->start;
    my $values = sub { return form(member_forms($t, $_[0]), 'change', weight => $_[1]) };
    my $form = $values->($url[0], 2);
    like(change($t, { %$form, weight => 5, max => 9 },
        qr/weight: from 2 to 5.*max in flight: from no limit to 9/s), qr/weight=5/, 'a message');
    is(row($t, $url[0])->{$_->[0]}, $_->[1], $_->[0]) for ['values.weight', 5], ['values.max', 9];
    my ($section) = those(page($t, ''), 'section', id => 'diff');
    like($section->{text}, qr/\Q$url[0]\E.*weight 5 \(configured: 2\)/s, 'the difference');

    $form = form(member_forms($t, $url[2]), 'remove');
    change($t, $form, qr/is removed.*It stays in the configuration/s);
    is(row($t, $url[2])->{state}, 'removed', 'removed');
    my ($state) = grep { !exists $_->{fields}{weight} && $_->{verb} eq 'change' }
        forms(member_forms($t, $url[0]));
    change($t, { %{ $state->{fields} }, state => 'down' },
        qr/state: from up to down.*No other member of this pool is up/s);
    is(row($t, $url[0])->{state}, 'down', 'down');
    change($t, form(member_forms($t, $url[2]), 'forget'), qr/becomes again.*comes back/s);
    is(row($t, $url[2])->{state}, 'up', 'back again');
    change($t, { %{ form(page($t, ''), 'add') }, url => 'http://127.0.0.1:9', weight => 7 },
        qr{gets the member http://127\.0\.0\.1:9.*weight: 7}s);
    is(row($t, 'http://127.0.0.1:9')->{'values.weight'}, 7, 'added');
    my ($text) = ask($t, form(page($t, ''), 'forget-all'));
    like($text, qr{\Q$url[0]\E.*weight: from 5 to 2.*http://127\.0\.0\.1:9 is removed}s, 'all');
    change($t, form(page($t, ''), 'forget-all'), qr/becomes again what the configuration says/);
    is(row($t, $url[0])->{'values.weight'}, 2, 'as configured');
    is(row($t, 'http://127.0.0.1:9'), undef, 'and no other');

    $form = $values->($url[0], 2);
    is(post($t, $form)->status, 400, 'nothing to change');
    is(post($t, { %$form, weight => 'x' })->status, 400, 'no number');
    is(row($t, $url[0])->{'values.weight'}, 2, 'as it was');
};

behaviour 'forms of others and of yesterday do nothing', @two, sub {
    my ($t) = @_;
    manager($t, 'on');
    my @url = pool_of_three($t);
    $t->start;
    my $form = form(member_forms($t, $url[0]), 'remove');
    my ($text, $yes) = ask($t, $form);
    is(post($t, { %$yes, token => $_ })->status, 403, "token '$_'")
        for '', 'x', $yes->{token} =~ tr/0-9a-f/1-9a-f0/r;
    is(post($t, $yes, 'Sec-Fetch-Site' => 'cross-site')->status, 403, 'of another site');
    is(post($t, $yes, Origin => 'http://evil.example')->status, 403, 'of another origin');
    is(post($t, { %$yes, etag => '' })->status, 412, 'without what was shown');
    is(row($t, $url[0])->{state}, 'up', 'nothing has happened');
    change($t, { %{ form(member_forms($t, $url[1]), 'change', weight => 1) }, weight => 3 },
        qr/weight/);
    my $again = post($t, $yes);
    is($again->status, 412, 'the pool has changed');
    my ($new) = forms([elements($again->body)]);
    is(row($t, $url[0])->{state}, 'up', 'nothing has happened');
    is(post($t, { %{ $new->{fields} }, yes => 1 })->status, 303, 'asked again');
    is(row($t, $url[0])->{state}, 'removed', 'it is done');
};

# The token of a user and an hour as the server makes it, from the key that it keeps.
sub token_of {
    my ($t, $user, $hour) = @_;
    my ($key) = slurp($t->directory . '/run/rproxy-sessions.key') =~ /^(\w+)/;
    return Digest::SHA::hmac_sha256_hex(
        join("\n", 'rproxy-manager form 1', $hour, $t->host, 0, 'user', $user), $key);
}

behaviour 'a form needs a token of its user, not older than the last hour', @two, sub {
    my ($t) = @_;
    $t->extra_modules(qw(authn_core auth_basic authn_anon authz_user));
    manager($t, 'on', 'AuthType Basic', 'AuthName x', 'AuthBasicProvider anon', 'Anonymous *',
        'Require valid-user');
    pool_of_three($t);
    $t->start;
    my %login = map { $_ => [Authorization => 'Basic ' . MIME::Base64::encode("$_:x\@y", '')] }
        qw(alice bob);
    my $hour = sub { return int(time / 3600) };
    my $began = $hour->();
    my %form = map { $_ => form(page($t, '', @{ $login{$_} }), 'add') } qw(alice bob);
    ok((grep { token_of($t, 'alice', $_) eq $form{alice}{token} } $began .. $hour->()), 'a token');
    my $question = post($t, { %{ $form{alice} }, url => 'http://127.0.0.1:9' }, @{ $login{alice} });
    my ($asked) = forms([elements($question->body)]);
    my $yes = { %{ $asked->{fields} }, yes => 1 };

    my %bad = ('of another user' => $form{bob}{token}, 'wrong' => 'a' x 64, 'a part' => 'a' x 63,
        'of the hour before the last' => token_of($t, 'alice', $hour->() - 2), 'none' => undef);
    for my $name (sort keys %bad) {
        my %fields = (%$yes, token => $bad{$name});
        delete $fields{token} if !defined $bad{$name};
        for my $said ('', 1) {
            my $refused = post($t, { %fields, yes => $said }, @{ $login{alice} });
            is($refused->status, 403, "$name: " . ($said ? 'the action' : 'the question'));
            like((those([elements($refused->body)], 'p', id => 'message'))[0]{text},
                qr/too old, or not from this page: go back, load the page again/, 'and why');
        }
    }
    my $journal = sub { return $t->get('/manager/api/journal', @{ $login{alice} })->body };
    like($journal->(), qr/"entries": \[\]/, 'nothing has happened');
    my ($now, $status);
    do {
        $now = $hour->();
        $status = post($t, { %$yes, token => token_of($t, 'alice', $now - 1) }, @{ $login{alice} })
            ->status;
    } while ($status == 403 && $now != $hour->());
    is($status, 303, 'that of the last hour will do');
    like($journal->(), qr{"what": "http://127\.0\.0\.1:9\S* added}, 'it is done');
};

done_testing;
