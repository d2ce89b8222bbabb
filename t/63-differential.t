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
use RProxy::Differential;
use RProxy::Grammar;

use constant {
    STREAMS => $ENV{RPROXY_STREAMS} // 3_000,
    SEED    => $ENV{RPROXY_SEED} // 1,
    PLACES  => 12,       # conversations at once in each lane
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
# - A field that stands twice, and Vary: see RProxy::Differential.
# - The answer to a body that is malformed is httpd's error bucket in the pipeline: without
#   Content-Length and Proxy-Status.
# - How much of such a request the upstream has got by then is a matter of time: requests that
#   never were whole there are not compared.
sub without_accepted {
    my ($line, @fields) = @_;
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
        my ($line, @fields) = RProxy::Differential::head_of($head);
        join "\n", "<< $line",
            without_accepted($line, RProxy::Differential::response_fields(@fields)), "\n$body";
    } @answers;
}

sub saw {
    my ($result) = @_;
    my @whole = grep { $_->{whole} } @{ $result->{requests} };
    return join "\n", client_saw($result->{client}),
        "[client: $result->{closed}" . ($result->{stalled} ? ', stalled' : '') . ']',
        map { RProxy::Differential::upstream_saw($_) } @whole;
}

# Further accepted differences:
# - An answer whose body is malformed from its first byte on: the pipeline resets the connection
#   before the head has left, the engine has sent the head.
# - Request bodies: the engine refuses with 400 what httpd's body filter takes (blanks behind a
#   chunk's size), answers with 413 (a size beyond all numbers) or with silence. A body that ends
#   with the connection gets a 400 or silence in either, as it is noticed: nobody reads it.
# - Of two Dates of an answer httpd keeps one.
# - A client that goes on with its body while its connection is closed sees the end, or a reset if
#   a byte comes after the proxy's last look.
sub is_accepted {
    my ($both, $conversation) = @_;
    my @lines = RProxy::Differential::lines_of($both);
    my $has = sub { my ($what) = @_; return scalar grep { /$what/ } @lines };
    return 1 if $has->(qr/^- \[client: reset\]/) && $has->(qr/^\+ \[broken off\]/);
    return 1 if @lines == grep { /^[-+] date: / } @lines;
    my $bytes = join '', @{ $conversation->{parts} };
    return 0 if $bytes !~ /(?:Transfer-Encoding|Content-Length)/i;
    return 1 if @lines == grep { /^[-+] \[client: (?:eof|reset)\]$/ } @lines;
    return 1 if $both->[1] =~ /^<< HTTP\S+ 400 /m && $bytes =~ /^[0-9a-f]+[ \t]+\r\n/mi;
    return $has->(qr/^\+ << HTTP\S+ 400 /)
        || (!$has->(qr/^\+/) && $has->(qr/^- << HTTP\S+ 400 /)
            && $conversation->{end} =~ /^(?:half|close)/);
}

# One answer or one part less.
sub smaller {
    my ($conversation) = @_;
    my ($parts, $answers) = @$conversation{qw(parts answers)};
    my @less;
    for my $index (grep { $answers->[$_] } 0 .. $#$answers) {
        my @others = @$answers;
        $others[$index] = undef;
        push @less, { %$conversation, answers => \@others, pieces => $parts };
    }
    for my $index (@$parts > 1 ? 0 .. $#$parts : ()) {
        my @others = @$parts;
        splice @others, $index, 1;
        push @less, { %$conversation, parts => \@others, pieces => \@others };
    }
    return @less;
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
    my $differential = RProxy::Differential->new(
        lanes => \@lanes, saw => \&saw, accepted => \&is_accepted, smaller => \&smaller,
        text => sub { join('', @{ $_[0]{pieces} }) . " [$_[0]{end}]" },
        lane_names => 'pipeline -, engine +');
    is($differential->kinds_of_difference(scalar @KINDS,
        map { $grammar->conversation } 1 .. STREAMS), 0, 'no kind of difference');
    my %served;
    $served{$_}++ for $t->access_log;
    cmp_ok($served{engine} // 0, '>', STREAMS / 2, 'the engine has served its part')
        or diag(explain(\%served));
};

done_testing;
