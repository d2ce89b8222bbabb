#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The same streams of HTTP/2, valid, odd and malformed, frame by frame, to the engine and to
# mod_http2 with the pipeline behind it: clients and upstreams must see the same. RPROXY_STREAMS and
# RPROXY_SEED make more and other ones; a difference is shown with the smallest conversation that
# has it.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Conversations;
use RProxy::Differential;
use RProxy::StreamGrammar;
use RProxy::Streams;

use constant {
    CONVERSATIONS => $ENV{RPROXY_STREAMS} // ($ENV{RPROXY_PRELOAD} ? 300 : 1_000),
    SEED          => $ENV{RPROXY_SEED} // 1,
    PLACES        => 12,       # conversations at once in each lane
};

# What each virtual host has besides the route, the same in both lanes.
my @SETTINGS = ('ServerAlias alias.example.test', 'Protocols h2c http/1.1');
my @KINDS = (
    [],
    ['RProxyErrorOverride on', 'RProxyPreserveHost off', 'LimitRequestFieldSize 3000',
        'LimitRequestBody 3000'],
);

sub vhost {
    my ($t, $kind) = @_;
    my $place = RProxy::Conversations->new_place($t->listen);
    $t->vhost('www.example.test', [@SETTINGS, @{ $KINDS[$kind] },
        $t->is_engine ? () : ('H2WebSockets on', 'H2EarlyHints on'),
        "RProxyPass / http://127.0.0.1:$place->{upstream_port}/"], port => $place->{port});
    @$place{qw(kind is_engine)} = ($kind, $t->is_engine);
    return $place;
}

# ---- what is compared -----------------------------------------------------------------------

# Accepted differences:
# - Pages of errors: the engine's are plain. Both are compared as [refused: STATUS], with those of
#   their fields that are not always there. mod_http2 has Allow for what it doesn't know, no page
#   where a WebSocket fails, and no Proxy-Status for bodies that are malformed or too large.
my %OF_PAGES = map { $_ => 1 } qw(allow content-length content-type date server);

# The status of a page that either makes itself, also of one that HEAD doesn't get.
sub status_of_page {
    my ($stream) = @_;
    my ($status, $fields) = @{ $stream->{head} // return };
    my %fields = map { @$_ } @$fields;
    return $status if $stream->{body} =~ m{\A<!DOCTYPE.*<title>}s
        || ($stream->{body} eq '' && $status =~ /^[45]/
            && (($fields{'content-type'} // '') eq 'text/html; charset=iso-8859-1'
                || join(' ', %fields) eq 'content-length 0'));
    return;
}

# - TRACE, which httpd answers itself.
sub is_trace {
    my ($stream) = @_;
    my $is_one = grep { "@$_" eq 'content-type message/http' } @{ ($stream->{head} // [])->[1] };
    return $is_one ? 'TRACE' : undef;
}

# - An answer that breaks off: how much of it the client gets before is a matter of time, up to
#   nothing, which mod_http2 may still turn into a 502.
sub stream_saw {
    my ($stream) = @_;
    return '[refused: broken]' if $stream->{end} eq 'reset: INTERNAL_ERROR';
    return "[refused: $1]" if !$stream->{head} && $stream->{end} =~ /^(reset: .*|stalled)/;
    my @heads = (status_of_page($stream) // '') eq '502' ? () : @{ $stream->{interim} };
    my @body = ("\n$stream->{body}", fields_of($stream->{trailers}), "[$stream->{end}]");
    if (my $status = status_of_page($stream) // is_trace($stream)) {
        @body = ("[refused: $status]", $stream->{end} eq 'ended' ? () : "[$stream->{end}]",
            fields_of([grep { !$OF_PAGES{ $_->[0] }
                && "@$_" !~ /^proxy-status .*error=http_request_error/ } @{ $stream->{head}[1] }]));
    }
    elsif ($stream->{head}) {
        push @heads, $stream->{head};
    }
    return join "\n", (map { ("<< $_->[0]", fields_of($_->[1])) } @heads), @body;
}

sub fields_of {
    my ($fields) = @_;
    return RProxy::Differential::response_fields(map { "$_->[0]: $_->[1]" } @$fields);
}

# - mod_http2 loses empty pieces of what stands more than once, tells the upstream of a length of 0
#   where there is a Content-Type without a body, knows of some bodies sooner that they are empty,
#   and sends some fields on in heads, but not in trailers.
my $NO_TRAILER = qr/^(?:te|cookie|range|expect|pragma|cache-control|max-forwards|authorization
    |proxy-authorization):/xi;

sub upstream_saw {
    my ($request) = @_;
    my $trailers = join "\r\n", grep { !/$NO_TRAILER/ } split /\r\n/, $request->{trailers} // '';
    my $text = RProxy::Differential::upstream_saw({ %$request, trailers => $trailers });
    $text =~ s/^content-length: 0\n//m if $text =~ /^content-type:/m;
    $text =~ s/^(?:transfer-encoding: chunked|trailer: .*)\n//mg
        if "$request->{body}$trailers" eq '';
    $text =~ s/^(\S+: )([^\n]*)$/$1 . join ', ', grep { length } split m{[,;] ?}, $2/gme;
    return $text =~ s/^sec-websocket-key: \S{22}==$/sec-websocket-key: KEY/mr;
}

# - What RFC 9113 calls malformed and mod_http2 doesn't: blanks around a value (section 8.2.1), and
#   Host beside another :authority (8.3.1). Trailers that would change what the message is are
#   forgotten there; the engine refuses them, as either lane does in HTTP/1.1.
sub refusal_of {
    my ($head, @others) = @_;
    my @trailers = map { $_->[0] eq 'headers' ? @{ $_->[1] } : () } @others;
    return 'reset: PROTOCOL_ERROR' if grep { $_->[1] =~ /\A[ \t]|[ \t]\z/ } @{ $head->[1] },
        @trailers;
    my ($authority) = map { $_->[1] } grep { $_->[0] eq ':authority' } @{ $head->[1] };
    return 'reset: PROTOCOL_ERROR' if defined $authority
        && grep { $_->[0] eq 'host' && lc $_->[1] ne lc $authority } @{ $head->[1] };
    return undef if grep { $_->[0] eq 'content-length' } @{ $head->[1] };
    return (grep { $_->[0] =~ /^(?:host|content-length)$/ } @trailers) ? '400' : undef;
}

# - What is behind Content-Length is malformed when it comes; the request may be whole by then.
sub may_be_whole {
    my ($head, @others) = @_;
    my ($length) = map { $_->[1] } grep { $_->[0] eq 'content-length' } @{ $head->[1] };
    return ($length // '') =~ /^\d+$/
        && $length <= length join '', map { $_->[0] eq 'data' ? $_->[1] : () } @others;
}

# - What the streams of a connection have got when it ends with an error is a matter of time.
sub saw {
    my ($result, $place) = @_;
    my $player = $result->{player};
    my $ending = '[connection: ' . $player->ending . ']';
    return $ending if $ending =~ /GOAWAY/;
    my @streams = @{ $player->{conversation}{streams} };
    my (%ignored, @text);
    for my $stream ($player->streams) {
        my @steps = @{ shift @streams // [[headers => []]] };
        my $refusal = $place->{is_engine} ? undef : refusal_of(@steps);
        push @text, $refusal ? "[refused: $refusal]" : stream_saw($stream);
        my ($number) = map { $_->[1] } grep { $_->[0] eq 'x-stream' } @{ $steps[0][1] };
        $ignored{ $number // '' } = 1
            if $refusal || ($stream->{end} =~ /^reset/ && may_be_whole(@steps));
    }
    my @requests = grep { $_->{whole}
        && !($_->{head} =~ /^X-Stream: (\d+)\r$/mi && $ignored{$1}) } @{ $result->{requests} };
    return join "\n", @text, $ending, sort map { upstream_saw($_) } @requests;
}

# - How the same is refused: what the reference says, and the engine.
my %REFUSED = map { $_ => 1 } (
    '431 400',                      # a field that is too large: in HTTP/1.1 either says 400
    '414 400', '404 400', '400 404',        # paths that are too long, have %00, %2f or %zz
    '400 405', 'TRACE 405',                 # CONNECT; TRACE
    '400 reset: PROTOCOL_ERROR',            # an authority or a scheme that is none is malformed
    'broken 400', 'broken 414', 'broken 431',       # a line that is far too long
    'broken reset: PROTOCOL_ERROR',                 # the same, malformed
    '502 broken', 'broken 502',             # an answer that breaks off
    # Where there are two reasons.
    '414 405', '404 405', '431 405', '431 404', '501 400', '501 404', '417 400', '417 404',
    '414 404', '417 405', 'reset: PROTOCOL_ERROR 400', 'reset: PROTOCOL_ERROR 404',
    (map { "$_ reset: PROTOCOL_ERROR" } 404, 414, 417, 431),
    # In the middle of a request mod_http2 waits for its end.
    (map { "stalled $_" } 400, 404, 405, 414, 417, 431, 501, 'reset: PROTOCOL_ERROR'),
);

# - Some errors of nghttp2 end all of a connection of mod_http2, with a code that is none.
sub is_accepted {
    my ($both, $conversation) = @_;
    return 1 if $both->[0] =~ /^\[connection: GOAWAY error \d{6}/m;
    my @refused = map { [/^\[refused: (.*)\]$/mg] } @$both;
    my ($reference, $engine) = map { s/^\[refused: .*\]$/[refused]/mgr } @$both;
    return 0 if $reference ne $engine;
    return !grep { $refused[0][$_] ne $refused[1][$_]
        && !$REFUSED{"$refused[0][$_] $refused[1][$_]"} } 0 .. $#{ $refused[0] };
}

# ---- conversations as text, and smaller ones ------------------------------------------------

sub step_text {
    my ($what, $first, @rest) = @{ $_[0] };
    my $options = join ' ', map { ref ? "[@$_]" : $_ } @rest;
    return join "\n", "HEADERS $options", map { "    $_->[0]: $_->[1]" } @$first
        if $what eq 'headers';
    return join ' ', $what, $first // (), $options;
}

sub text {
    my ($conversation) = @_;
    my @flags = grep { $conversation->{$_} } qw(together one_write continue);
    my %settings = %{ $conversation->{settings} };
    return join "\n", "@flags " . join(' ', map { "setting $_ = $settings{$_}" } keys %settings),
        map { ('stream', map { step_text($_) } @$_) } @{ $conversation->{streams} };
}

# One stream, answer, step, field or option less.
sub smaller {
    my ($conversation) = @_;
    my ($streams, $answers) = @$conversation{qw(streams answers)};
    my @less = map { { %$conversation, $_ => 0 } }
        grep { $conversation->{$_} } qw(together one_write continue);
    push @less, { %$conversation, settings => {} } if %{ $conversation->{settings} };
    my $without = sub { my ($at, @list) = @_; splice @list, $at, 1; return \@list };
    my $instead = sub { my ($at, $new, @list) = @_; $list[$at] = $new; return \@list };
    for my $index (0 .. $#$streams) {
        my @steps = @{ $streams->[$index] };
        push @less, { %$conversation, answers => $instead->($index, undef, @$answers) }
            if $answers->[$index];
        push @less, { %$conversation, streams => $without->($index, @$streams) }
            if @$streams > 1;
        my $with = sub { push @less, { %$conversation,
            streams => $instead->($index, $_[0], @$streams) } };
        $with->($without->($_, @steps)) for 1 .. $#steps;
        my ($what, $fields, @options) = @{ $steps[0] };
        $with->($instead->(0, [$what, $without->($_, @$fields), @options], @steps))
            for grep { $fields->[$_][0] ne 'x-stream' } 0 .. $#$fields;
        my %options = @options;
        $with->($instead->(0, [$what, $fields, end => $options{end}], @steps))
            if keys %options > 1;
    }
    return @less;
}

behaviour 'the engine treats HTTP/2 as mod_http2 and the pipeline do', lanes => ['engine'], sub {
    my ($t) = @_;
    my $reference = $t->beside('event');
    $reference->extra_modules('http2');
    my @lanes;
    for my $httpd ($reference, $t) {
        $httpd->mpm_config(ThreadsPerChild => 48, MaxRequestWorkers => 48, MaxSpareThreads => 48);
        $httpd->access_format('%{rproxy-lane}e');
        push @lanes, [map { vhost($httpd, $_ % @KINDS) } 0 .. PLACES - 1];
        $httpd->start;
    }

    my $grammar = RProxy::StreamGrammar->new(SEED);
    my $differential = RProxy::Differential->new(
        lanes => \@lanes, saw => \&saw, accepted => \&is_accepted, smaller => \&smaller,
        text => \&text, lane_names => 'mod_http2 -, engine +');
    is($differential->kinds_of_difference(scalar @KINDS,
        map { $grammar->conversation } 1 .. CONVERSATIONS), 0, 'no kind of difference');
    my %served;
    $served{$_}++ for $t->access_log;
    cmp_ok($served{engine} // 0, '>', CONVERSATIONS, 'the engine has served its part')
        or diag(explain(\%served));
};

done_testing;
