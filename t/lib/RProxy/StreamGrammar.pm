# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Conversations of HTTP/2 for RProxy::Streams made up at random, from what RProxy::Grammar has for
# HTTP/1.1 and what there is in HTTP/2 alone. The same seed gives the same ones.
package RProxy::StreamGrammar;
use strict;
use warnings;
use RProxy::Grammar;
use RProxy::H2;

my $HOST = 'www.example.test';

sub new {
    my ($class, $seed) = @_;
    srand $seed;
    return bless {}, $class;
}

*chance = \&RProxy::Grammar::chance;
*pick = \&RProxy::Grammar::pick;
*mostly = \&RProxy::Grammar::mostly;
*content = \&RProxy::Grammar::content;

# ---- fields ---------------------------------------------------------------------------------

# "Name: value" of HTTP/1.1 as a field of HTTP/2.
sub field {
    my ($name, $value) = $_[0] =~ /\A(.[^:]*):[ \t]*(.*?)[ \t]*\z/s ? ($1, $2) : ($_[0], '');
    return [lc $name, $value];
}

# What the connection has in HTTP/1.1 is malformed here (RFC 9113 section 8.2.2).
my $OF_CONNECTION = qr/^(?:connection|upgrade|keep-alive|proxy-connection|transfer-encoding)$/;
my @WRONG = (['X-Capital', 'x'], ['', 'x'], ['x-blank ', 'x'], ['x-front', ' x'], ['x-back', "x\t"],
    [':unknown', 'x'], [':status', '200'], [':path', '/late'], [':method', 'GET'],
    [':authority', 'late'], ['transfer-encoding', 'chunked'], ['connection', 'keep-alive'],
    ['connection', 'x-a'], ['keep-alive', '300'], ['proxy-connection', 'close'],
    ['upgrade', 'websocket'], ['te', 'gzip'], ['te', 'trailers, gzip'], ['te', ''],
    ['te', 'Trailers'], ['x:y', 'z'], ['x', "a\r\nX-Injected: b"], ["x\r\ny", 'z'],
    ['x', "a\nb"], ['x', "a\0b"]);
my @ODD = (['te', 'trailers'], ['cookie', 'c=d'], ['cookie', ''], ['cookie', 'e=f; g=h'],
    ['priority', 'u=0, i'], ['x-a', ''], ['x-a', 'b' x 4_000], ['http2-settings', 'AAMA'],
    ['x', '%0d%0a'], ['content-type', 'a/b'], ['sec-websocket-key', 'x']);

sub fields {
    my @fields = grep { $_->[0] !~ $OF_CONNECTION || chance(0.05) }
        map { field($_) } RProxy::Grammar::fields();
    push @fields, map { pick(@ODD) } 0 .. rand 4 if chance(0.4);
    splice @fields, rand @fields, 0, pick(@WRONG) if chance(0.06);
    if (chance(0.1)) {
        splice @fields, rand @fields, 0, ['cookie', pick('a=b', 'c', 'd=e; f', '')] for 0 .. rand 4;
    }
    return @fields;
}

# [:authority or nothing, Host fields]
sub authority {
    return ([[':authority', $HOST]]) if chance(0.85);
    my ($first, @more) = map { field($_)->[1] } RProxy::Grammar::host_fields();
    my $way = rand;
    return ([], ['host', $first // $HOST]) if $way < 0.25;
    return ([[':authority', $first // '']], map { ['host', $_] } @more) if $way < 0.75;
    return ([[':authority', $HOST]], ['host', mostly(0.5, $HOST, uc $HOST, "$HOST:80", $first // '',
        'other.test')]);
}

sub pseudo {
    my ($method) = @_;
    my ($authority, @host) = authority();
    my @pseudo = ([':method', $method],
        [':scheme', mostly(0.05, 'http', 'https', 'ftp', '', 'HTTP', 'h:t')],
        [':path', RProxy::Grammar::target()], @$authority);
    if ($method eq 'CONNECT' && chance(0.7)) {
        @pseudo = grep { $_->[0] !~ /scheme|path/ } @pseudo;
        @$_[1] = "$HOST:443" for grep { $_->[0] eq ':authority' && chance(0.5) } @pseudo;
    }
    return (\@pseudo, @host) if chance(0.94);
    my $wrong = rand;
    my $place = int rand @pseudo;
    if ($wrong < 0.4) { splice @pseudo, $place, 1 }
    elsif ($wrong < 0.6) { push @pseudo, [@{ $pseudo[$place] }] }
    elsif ($wrong < 0.7) { push @pseudo, [':protocol', 'websocket'] }
    elsif ($wrong < 0.8) { @pseudo = reverse @pseudo }
    else { push @host, splice @pseudo, $place, 1 }
    return (\@pseudo, @host);
}

# ---- steps ----------------------------------------------------------------------------------

sub head {
    my ($fields, %options) = @_;
    $options{pad} = pick(0, 1, 50, 255) if chance(0.05);
    $options{priority} = [pick(0, 101, 2**31 | 99), 16] if chance(0.05);
    $options{split} = pick(2, 3, 7) if chance(0.08);
    $options{indexed} = 1 if chance(0.4);
    return [headers => $fields, %options];
}

# DATA in pieces; the last one may end the stream.
sub data {
    my ($bytes, $ends) = @_;
    my @pieces = ($bytes);
    if (length $bytes && chance(0.5)) {
        my $rest = $bytes;
        @pieces = ();
        push @pieces, substr $rest, 0, 1 + int rand length $bytes, '' while length $rest;
    }
    splice @pieces, rand @pieces, 0, '' if chance(0.1);
    my @steps = map { [data => $_, chance(0.1) ? (pad => pick(0, 1, 100, 255)) : ()] } @pieces;
    return @steps if !$ends;
    push @{ $steps[-1] }, end => 1 if chance(0.7);
    push @steps, [data => '', end => 1] if @{ $steps[-1] } % 2 == 1 || $steps[-1][-2] ne 'end';
    return @steps;
}

my @TRAILERS = (['x-t', '1'], ['x-trailer', '2'], ['content-length', '5'], ['host', 'x'],
    ['x-t', ''], ['te', 'trailers'], ['cookie', 'a=b'], ['authorization', 'x']);

sub trailers {
    my ($odd) = @_;
    my @fields = map { pick(@TRAILERS[0, 1]) } 0 .. rand 2;
    push @fields, pick(@TRAILERS) if chance(0.3);
    push @fields, pick(@WRONG, [':path', '/'], ['x-huge', 'w' x 9_000]) if $odd && chance(0.5);
    my $ends = !$odd || chance(0.9);
    return head(\@fields, end => $ends ? 1 : 0);
}

# (fields, steps behind the head); without steps the head ends the stream.
sub body {
    my $kind = rand;
    my $bytes = content(pick(0, 1, 5, 10, 100, 4_000, chance(0.1) ? 40_000 : 7));
    my @length = ['content-length', length $bytes];
    return ([]) if $kind < 0.15;
    return ([], data($bytes, 1)) if $kind < 0.35;
    return (\@length, data($bytes, 1)) if $kind < 0.6;
    return ([chance(0.3) ? @length : ()], data($bytes), trailers(0)) if $kind < 0.72;
    return ([chance(0.3) ? @length : ()], data($bytes), trailers(1)) if $kind < 0.8;
    return ([@length, ['expect', '100-continue']], ['wait'], data($bytes, 1)) if $kind < 0.85;
    return ([@length], data($bytes), [reset => pick(0, 1, 8)]) if $kind < 0.87;
    return ([]  , data($bytes), [reset => pick(0, 1, 8)]) if $kind < 0.89;
    return ([@length], data($bytes)) if $kind < 0.9;
    my @wrong = map { ref ? $_ : [['content-length', $_]] } ('5, 5', '+5', '-5', '0x5', '5 ', '05',
        '', '5;', '9' x 20, '4', '500', '2000000', '5,6', [(['content-length', '5']) x 2],
        [['content-length', '5'], ['content-length', '6']],
        [['content-length', '5'], ['transfer-encoding', 'chunked']]);
    return (pick(@wrong), chance(0.1) ? () : data(content(5), 1));
}

my @FRAMES = ([RProxy::H2::PRIORITY, 0, pack 'NC', 0, 10], [0x42, 0xff, 'unknown'],
    [RProxy::H2::WINDOW_UPDATE, 0, pack 'N', 1_000], [RProxy::H2::WINDOW_UPDATE, 0, "\0\0\0\0"],
    [RProxy::H2::WINDOW_UPDATE, 0, pack 'N', 0x7fff_ffff], [RProxy::H2::PRIORITY, 0, 'xy'],
    [RProxy::H2::PUSH_PROMISE, 4, 'xxxx'], [RProxy::H2::CONTINUATION, 4, ''],
    [RProxy::H2::SETTINGS, 0, ''], [RProxy::H2::PING, 0, 'x']);

# ---- streams --------------------------------------------------------------------------------

sub plain_stream {
    my ($number) = @_;
    my $method = pick(qw(GET GET HEAD POST PUT DELETE OPTIONS));
    my @body = $method =~ /^P/ ? data(content(int rand 300), 1) : ();
    return [[headers => [[':method', $method], [':scheme', 'http'],
        [':path', '/plain/' . int rand 1_000], [':authority', $HOST], ['x-stream', $number]],
        @body ? () : (end => 1)], @body];
}

sub odd_stream {
    my ($number) = @_;
    return web_socket($number) if chance(0.06);
    my $method = RProxy::Grammar::method();
    my ($framing, @steps) = ([]);
    ($framing, @steps) = body() if $method =~ /^(?:POST|PUT|PATCH)$/ || chance(0.05);
    my ($pseudo, @host) = pseudo($method);
    my @fields = (@$pseudo, @host, fields(), @$framing, ['x-stream', $number]);
    # Whether a body is asked for that is empty depends on when that is known.
    @fields = grep { $_->[0] ne 'expect' || $_->[1] !~ /^100-continue$/i } @fields
        if !grep { $_->[0] eq 'data' && $_->[1] ne '' } @steps;
    # Nor is it of interest what LimitRequest* count, or what fields are together.
    splice @fields, 90, 20 if @fields > 90;
    my %seen;
    @fields = grep { (length $_->[1] < 1_000 && $_->[0] ne 'expect') || !$seen{ $_->[0] }++ }
        @fields;
    if (chance(0.02)) {
        my $other = int rand @fields;
        @fields[0, $other] = @fields[$other, 0];
    }
    my $head = head(\@fields, @steps ? () : (end => 1));
    splice @steps, rand @steps, 0, [frame => @{ pick(@FRAMES) }] if @steps && chance(0.04);
    return [$head, @steps];
}

# Extended CONNECT. The upstream closes the tunnel when it has read the end's
# whole request line, however that was cut.
sub web_socket {
    my ($number) = @_;
    my $protocol = mostly(0.15, 'websocket', 'h2c', 'connect-udp', '', 'websocket, x',
        "a\tb");
    my @pseudo = ([':method', mostly(0.05, 'CONNECT', 'GET', 'POST')], [':scheme', 'http'],
        [':path', mostly(0.2, '/ws', RProxy::Grammar::target())], [':authority', $HOST],
        [':protocol', $protocol]);
    splice @pseudo, rand @pseudo, 1 if chance(0.05);
    my @fields = mostly(0.1, ['sec-websocket-version', '13'], ['sec-websocket-version', '8'],
        ['x', 'y']);
    push @fields, ['sec-websocket-protocol', 'chat'] if chance(0.3);
    push @fields, ['sec-websocket-key', 'dGhlIHNhbXBsZSBub25jZQ=='] if chance(0.1);
    push @fields, pick(@WRONG) if chance(0.05);
    return [head([@pseudo, @fields, ['x-stream', $number]]), ['tunnel'],
        data(content(int rand 300)), data('GET /the-end HTTP/1.1', chance(0.3))];
}

my $SWITCH = { then => 'tunnel',
    bytes => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Accept: {ACCEPT}\r\nX-Tunnel: yes\r\n\r\n" };

# ---- conversations --------------------------------------------------------------------------

# Up to four streams, one behind the other; one of them odd, or usual ones with odd answers. Some
# usual ones are sent all at once.
sub conversation {
    my ($self) = @_;
    my $count = pick(1, 1, 1, 2, 2, 3, 4);
    my $odd = chance(0.7) ? int rand $count : -1;
    my (@streams, @answers);
    for my $number (0 .. $count - 1) {
        my $is_odd = $number == $odd || ($odd >= 0 && chance(0.2));
        $streams[$number] = $is_odd ? odd_stream($number) : plain_stream($number);
        $answers[$number] = RProxy::Grammar::answer() if $odd < 0 && chance(0.85);
        $answers[$number] //= $SWITCH
            if grep { $_->[0] eq ':protocol' } @{ $streams[$number][0][1] } and chance(0.85);
    }
    my %settings = chance(0.1) ? (RProxy::H2::SETTING_INITIAL_WINDOW, pick(100, 1_000, 2**31 - 1))
                               : ();
    return { player => 'RProxy::Streams', streams => \@streams, answers => \@answers,
        settings => \%settings, one_write => chance(0.5), continue => chance(0.7),
        together => $odd < 0 && chance(0.3) };
}

1;
