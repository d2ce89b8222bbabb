#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The same byte streams, valid, odd and malformed, to both lanes: clients and upstreams must see the
# same. RPROXY_STREAMS and RPROXY_SEED make more and other ones; a difference is shown with the
# shortest stream that has it.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Conversations;
use RProxy::Grammar;
use RProxy::Wait qw(seconds);

use constant {
    STREAMS => $ENV{RPROXY_STREAMS} // 3_000,
    SEED    => $ENV{RPROXY_SEED} // 1,
    PLACES  => 12,       # conversations at once in each lane
    QUIET   => 0.3,      # seconds of a stall at first
    SURE    => 1.5,      # when a difference is looked at again, alone
    AGAIN   => 3,        # it must show so often
    SHOWN   => 25,       # differences
};

# What each virtual host has besides the route, the same in both lanes.
my @SETTINGS = (
    '<Location /guarded>', 'Header set X-Guard 1', '</Location>',
    '<Location /limited>', 'LimitRequestBody 50', '</Location>',
    'ServerAlias alias.example.test', 'RProxyPass /static !', 'RProxyUpgrade any',
    'BrowserMatch guarded guarded=1',
);
my @KINDS = (
    [],
    ['RProxyErrorOverride on', 'ErrorDocument 404 "own 404"', 'ErrorDocument 400 "own 400"',
        'ErrorDocument 502 /static/sorry', 'RProxyPreserveHost off'],
);

sub vhost {
    my ($t, $lane, $kind) = @_;
    my $place = RProxy::Conversations->new_place($t->listen);
    $t->vhost('www.example.test', ["RProxyEngine $lane", @SETTINGS, @{ $KINDS[$kind] },
        "RProxyPass / http://127.0.0.1:$place->{upstream_port}/"], port => $place->{port});
    $place->{kind} = $kind;
    return $place;
}

# ---- what is compared -----------------------------------------------------------------------

# Accepted differences, all of them made by httpd's pipeline and without meaning to the other side:
# - A field that stands twice reaches the upstream as one, joined by a comma. (The engine leaves it
#   as it is, which is right for Cookie, too.)
# - Vary in a response loses what it names twice.
# - The answer to a body that is malformed is httpd's error bucket in the pipeline: without
#   Content-Length and Proxy-Status.
# - How much of such a request the upstream has got by then is a matter of time: requests that
#   never were whole there are not compared.
sub sorted_fields {
    my ($head, $without) = @_;
    my ($line, @fields) = split /\r\n/, $head;
    @fields = map { s/^([^:]*)/lc $1/er } grep { !/$without/i } @fields;
    if ($head =~ m{^HTTP}) {
        s/^date: (?!.* 2000 ).*/date: now/ for @fields;
        return join "\n", $line, without_accepted($line, sort @fields);
    }
    return join "\n", $line // '', sort +joined(@fields);
}

sub joined {
    my (@fields) = @_;
    my (%value, @names);
    for (@fields) {
        my ($name, $value) = /^([^:]*):[ \t]*(.*)/s;
        push @names, $name if !$value{$name};
        push @{ $value{$name} }, $value;
    }
    return map { "$_: " . join ', ', @{ $value{$_} } } @names;
}

sub without_accepted {
    my ($line, @fields) = @_;
    my %seen;
    @fields = grep { !/^vary:/ || !$seen{$_}++ } @fields;
    return grep { !/^(?:content-length:|proxy-status: .*error=http_request_error)/ } @fields
        if $line =~ / (?:400 Bad|408 Request T|413 Request E)/;
    return @fields;
}

sub undo_chunks {
    my ($bytes) = @_;
    my $body = '';
    while ($bytes =~ s/\A([0-9a-f]+)\r\n//) {
        my $size = hex $1 or return "$body\n[last chunk]" . join "\n", sort split /\r\n/, $bytes;
        $body .= substr $bytes, 0, $size, '';
        $bytes =~ s/\A\r\n// or last;
    }
    return "$body\n[broken off]$bytes";
}

sub client_saw {
    my ($bytes) = @_;
    my @answers = split /(?=HTTP\/1\.[01] \d{3} )/, $bytes;
    return map {
        my ($head, $body) = /\A(.*?\r\n)\r\n(.*)\z/s ? ($1, $2) : ($_, '');
        $body = undo_chunks($body) if $head =~ /^Transfer-Encoding: chunked\r$/mi;
        '<< ' . sorted_fields($head, qr/^\0/) . "\n\n$body";
    } @answers;
}

sub upstream_saw {
    my ($request) = @_;
    return '>> ' . sorted_fields($request->{head}, qr/^X-Request-ID:/)
        . "\n\n$request->{body}\n" . ($request->{trailers} // '');
}

sub seen {
    my ($place, $result) = @_;
    my @whole = grep { $_->{whole} } @{ $result->{requests} };
    my $text = join "\n", client_saw($result->{client}),
        "[client: $result->{closed}" . ($result->{stalled} ? ', stalled' : '') . ']',
        map { upstream_saw($_) } @whole;
    $text =~ s/\b$place->{upstream_port}\b/UPSTREAM/g;
    $text =~ s/\b$place->{port}\b/PORT/g;
    return $text;
}

# ---- finding differences --------------------------------------------------------------------

# Holds them in both lanes at once; what was seen: [off, auto] for each.
sub hold {
    my ($lanes, $kind, $conversations, $quiet) = @_;
    my @places = map { [grep { $_->{kind} == $kind } @$_] } @$lanes;
    return map { [map { seen(@$_) } @$_] }
        RProxy::Conversations->run(\@places, $conversations, $quiet);
}

# True if it differs each time.
sub differs {
    my ($lanes, $kind, $conversation) = @_;
    for (1 .. AGAIN) {
        my ($both) = hold($lanes, $kind, [$conversation], seconds(SURE));
        return undef if $both->[0] eq $both->[1];
        return $both if $_ == AGAIN;
    }
    return;
}

sub printable {
    my ($text) = @_;
    $text =~ s/(.)\1{40,}/"$1\{" . length($&) . '}'/ges;
    $text =~ s/(The quick brown fox.{20}).{30,}?(?=[\r\n<]|\z)/$1.../gs;
    $text =~ s/\r\n/\\r\\n\n/g;
    return $text =~ s/([^\x20-\x7e\n])/sprintf '\x%02x', ord $1/ger;
}

# Further accepted differences:
# - An answer whose body is malformed from its first byte on: the pipeline resets the connection
#   before the head has left, the engine has sent the head.
# - Request bodies: the engine refuses with 400 what httpd's body filter takes (blanks behind a
#   chunk's size), answers with 413 (a size beyond all numbers) or with silence. A body that ends
#   with the connection gets a 400 or silence in either, as it is noticed: nobody reads it.
# - A trailer that stands twice is joined, as fields are; of two Dates of an answer httpd keeps one.
sub is_accepted {
    my ($both, $conversation) = @_;
    my @lines = lines_of($both);
    my $has = sub { my ($what) = @_; return scalar grep { /$what/ } @lines };
    return 1 if $has->(qr/^- \[client: reset\]/) && $has->(qr/^\+ \[broken off\]/);
    return 1 if @lines == grep { /^[-+] (?:X-T|date): / } @lines;
    my $bytes = join '', @{ $conversation->{parts} };
    return 0 if $bytes !~ /(?:Transfer-Encoding|Content-Length)/i;
    return $has->(qr/^\+ << HTTP\S+ 400 /)
        || (!$has->(qr/^\+/) && $has->(qr/^- << HTTP\S+ 400 /)
            && $conversation->{end} =~ /^(?:half|close)/);
}

# What differs, by lines.
sub lines_of {
    my ($both) = @_;
    my ($off, $auto) = map { my %count; $count{$_}++ for split /\n/; \%count } @$both;
    my @lines = ((map { "- $_" } sort grep { ($off->{$_} // 0) > ($auto->{$_} // 0) } keys %$off),
        (map { "+ $_" } sort grep { ($auto->{$_} // 0) > ($off->{$_} // 0) } keys %$auto));
    return @lines;
}

# The class of a difference: what kinds of lines differ.
sub class_of {
    my ($both) = @_;
    my %kinds = map { $_ => 1 } map {
        m{^(. <<) HTTP/1.\d (.*)} ? "$1 $2" : m{^(. >>)} ? $1 : m{^(. \[client:.*\])} ? $1
            : m{^(. [a-z-]+:)} ? $1 : ();
    } lines_of($both);
    return join "\n", sort keys %kinds;
}

sub shortened {
    my (@lines) = @_;
    $#lines = 19 if @lines > 20;
    return printable(join "\n",
        map { length > 160 ? substr($_, 0, 160) . '... ' . length . ' bytes' : $_ } @lines);
}

# Leaves out parts as long as some difference stays.
sub reduce {
    my ($lanes, $kind, $conversation) = @_;
    my %small = (%$conversation, pieces => $conversation->{parts});
    return ($conversation, differs($lanes, $kind, $conversation))
        unless my $both = differs($lanes, $kind, \%small);
    my $try = sub {
        my %less = (%small, @_);
        $less{pieces} = $less{parts};
        my ($once) = hold($lanes, $kind, [\%less], seconds(QUIET));
        return if $once->[0] eq $once->[1];
        my $still = differs($lanes, $kind, \%less) or return;
        %small = %less;
        return $both = $still;
    };
    for my $index (reverse 0 .. $#{ $small{answers} }) {
        my @answers = @{ $small{answers} };
        $answers[$index] = undef;
        $try->(answers => \@answers) if $small{answers}[$index];
    }
    my $index = 0;
    while (@{ $small{parts} } > 1 && $index < @{ $small{parts} }) {
        my @parts = @{ $small{parts} };
        splice @parts, $index, 1;
        $try->(parts => \@parts) or $index++;
    }
    return (\%small, $both);
}

sub show {
    my ($conversation, $both, $count) = @_;
    my @answers = map {
        $_ ? 'answer: ' . printable($_->{bytes}) . " [$_->{then}]" : 'answer: usual';
    } @{ $conversation->{answers} };
    @answers = () if !grep { $_ } @{ $conversation->{answers} };
    diag(join "\n", '', '=' x 80, "difference, $count times:",
        printable(join '', @{ $conversation->{pieces} }) . " [$conversation->{end}]", @answers,
        '-' x 40 . ' pipeline -, engine +', shortened(lines_of($both)));
    return;
}

behaviour 'both lanes treat a stream of bytes the same way', lanes => ['engine'], sub {
    my ($t) = @_;
    my @lanes = map { my $lane = $_; [map { vhost($t, $lane, $_ % @KINDS) } 0 .. PLACES - 1] }
        qw(off auto);
    $t->extra_modules(qw(headers setenvif));
    $t->file('htdocs/static/file', "a file\n");
    $t->file('htdocs/static/sorry', "sorry\n");
    $t->mpm_config(ThreadsPerChild => 48, MaxRequestWorkers => 48, MaxSpareThreads => 48);
    $t->access_format('%{rproxy-lane}e');
    $t->start;

    my $grammar = RProxy::Grammar->new(SEED);
    my @conversations = map { $grammar->conversation } 1 .. STREAMS;
    my (@different, $unsteady);
    for my $kind (0 .. $#KINDS) {
        my @some = map { $conversations[$_] } grep { $_ % @KINDS == $kind } 0 .. $#conversations;
        my @both = hold(\@lanes, $kind, \@some, seconds(QUIET));
        push @different, map { [$kind, $some[$_], $both[$_]] }
            grep { $both[$_][0] ne $both[$_][1] && !is_accepted($both[$_], $some[$_]) }
            0 .. $#some;
    }
    note(scalar(@different) . ' of ' . STREAMS . ' differ at first sight');
    my %class;
    for (@different) {
        my ($kind, $conversation) = @$_;
        my $both = differs(\@lanes, $kind, $conversation);
        if (!$both || is_accepted($both, $conversation)) {
            $unsteady++;
            next;
        }
        push @{ $class{ class_of($both) } }, [$kind, $conversation];
    }
    note(($unsteady // 0) . ' of them do not when they are alone');
    my ($shown, $kinds) = (0, 0);
    for my $same (sort { @$b <=> @$a } values %class) {
        last if $shown++ >= SHOWN;
        my %length = map { $_ => length join '', @{ $_->[1]{parts} } } @$same;
        my ($shortest) = sort { $length{$a} <=> $length{$b} } @$same;
        # Alone it may turn out to be one of those that are accepted.
        my ($conversation, $both) = reduce(\@lanes, @$shortest);
        next if is_accepted($both, $conversation);
        $kinds++;
        show($conversation, $both, scalar @$same);
    }
    is($kinds, 0, 'no kind of difference');
    my %served;
    $served{$_}++ for $t->access_log;
    cmp_ok($served{engine} // 0, '>', STREAMS / 2, 'the engine has served its part')
        or diag(explain(\%served));
};

done_testing;
