# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Conversations for RProxy::Conversations made up at random: mostly valid requests and answers, each
# with a chance to be odd or wrong in one place or several. The same seed gives the same ones.
package RProxy::Grammar;
use strict;
use warnings;

my $HOST = 'www.example.test';

sub new {
    my ($class, $seed) = @_;
    srand $seed;
    return bless {}, $class;
}

sub chance { return rand() < $_[0] }
sub pick { return $_[int rand @_] }

# Mostly the first, with the given chance one of the others.
sub mostly {
    my ($chance, $usual, @odd) = @_;
    return chance($chance) ? pick(@odd) : $usual;
}

# ---- request lines --------------------------------------------------------------------------

my @SEGMENTS = ('a', 'b', 'file.html', '.', '..', '...', '', '%61', '%2e', '%2E%2e', '%2f', '%5c',
    '%25', '%zz', '%', '%4', '%00', '%0a', '%7f', '%20', '%3b', '%3f', '%23', 'a;x=1', '..;',
    ';', 'a%2Fb', 'a+b', 'a:b', '~u', '*', 'a&b', "\xc3\xa4", '%c3%a4', '%c0%ae', "a'b", '(x)', '|',
    '^', '`', '"', '<x>', '{y}', '[z]', '\\', '$&', '!', '@', ',', 'x' x 300);
my @TARGETS = ('/', '/a', '/a/b/', '/static/file', '/static/none', '/static/../a', '/guarded',
    '/guarded/x', '/guarded/../a', '/Guarded', '/%67uarded/', '/a//b', '//a', '//a/b', '//', '/./',
    '/..', '/../../etc/passwd', '/a/..', '/a/../b', '/a?', '/?', '/a?b?c', '/a?x=%zz', '/a?%00',
    "/a?\xe4", '/a?x=/../y', '/a#b', '/a?x#y', '*', 'a', '', '?', '.', "http://$HOST/a",
    "http://$HOST", "http://$HOST?x", "HTTP://WWW.EXAMPLE.TEST:80/A", 'http://other.test/a',
    "https://$HOST/a", 'ftp://x/a', 'http:///a', 'http://', 'http://u:p@x/a', "$HOST:443",
    'http://[::1]/a', '/a/http://x/', '/a:80', '/' . 'p' x 4_000, '/' . 'q' x 8_150,
    '/' . 'r' x 9_000, '/?' . 's' x 8_300, '/limited/x', '/server-status');

sub target {
    return mostly(0.5, '/a/' . int rand 100, @TARGETS) if chance(0.6);
    my $path = join '', map { '/' . pick(@SEGMENTS) } 0 .. rand 4;
    $path .= '?' . join '&', map { pick(@SEGMENTS) . '=' . pick(@SEGMENTS) } 0 .. rand 3
        if chance(0.3);
    return $path;
}

sub method {
    return pick(qw(GET GET GET POST POST PUT HEAD DELETE OPTIONS PATCH)) if chance(0.9);
    return pick('TRACE', 'CONNECT', 'PROPFIND', 'FOO', 'get', 'G@T', 'GE(T', '', 'M' x 40, "G\0T",
        'PRI', 'REPORT', 'PURGE', 'QUERY', "G\tT", 'Get', 'G' x 9_000);
}

sub version {
    return mostly(0.12, 'HTTP/1.1', 'HTTP/1.0', 'HTTP/1.0', 'HTTP/1.0', 'HTTP/1.2', 'HTTP/1.9',
        'HTTP/2.0', 'HTTP/0.9', 'HTTP/3', 'http/1.1', 'HTTP/1.1 ', 'HTTP/01.1', 'HTTP/1.10', 'HTTP',
        'HTTP/1', 'HTTP/.1', 'HTTP/1.', 'HTTP /1.1', 'HTTPS/1.1', '');
}

sub eol { return mostly(0.01, "\r\n", "\n", "\r", "\r\r\n", " \r\n", "\0\r\n", "\n\r") }

# ---- fields ---------------------------------------------------------------------------------

sub host_fields {
    return ("Host: $HOST") if chance(0.85);
    return pick([], ["Host: $HOST", "Host: $HOST"], ["Host: $HOST", 'Host: other.test'], ['Host:'],
        ["Host: WWW.Example.TEST"], ["Host: $HOST."], ["Host: $HOST:80"], ["Host: $HOST:8080"],
        ["Host: $HOST:"], ["Host: $HOST:x"], ["Host: $HOST:99999"], ['Host: :80'], ['Host: a b'],
        ['Host: a,b'], ['Host: u@x'], ['Host: [::1]'], ['Host: [::1]:80'], ['Host: [::1'],
        ['Host: 127.0.0.1'], ['Host: other.test'], ['Host: alias.example.test'], ['Host: a/b'],
        ['Host: -a'], ['Host: a_b'], ['Host: a..b'], ['Host: .a'], ['Host: ' . 'h' x 300],
        ["Host: \xe4"], ['Host: %41'], ["Host:\t$HOST\t"], ["host:$HOST"], ['Host : x'],
        ["Host: \0"],
        ['Host: *'], ['Host: a$b'], ["Host: $HOST", 'X-Forwarded-Host: other.test'],
        ['Host: 1.2.3'], ['Host: a.'], ['Host: ..'])->@*;
}

my @FIELDS = ('Accept: */*', 'Accept-Encoding: gzip, br', 'User-Agent: test', 'User-Agent: guarded',
    'Cookie: a=b; c="d"', 'Cookie: x', 'Referer: http://x/', 'Range: bytes=0-4',
    'If-None-Match: "x"',
    'If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT', 'If-Range: "x"', 'If-Match: *',
    'Authorization: Basic eDp5', 'Proxy-Authorization: Basic eDp5', 'Content-Type: text/plain',
    'Content-Encoding: gzip', 'X-Forwarded-For: 1.2.3.4', 'X-Forwarded-Proto: https',
    'X-Forwarded-Host: evil.test', 'X-Real-IP: 1.2.3.4', 'Forwarded: for=1.2.3.4;proto=https',
    'Via: 1.1 other', 'X-Request-ID: abc', 'Max-Forwards: 0', 'Max-Forwards: 5', 'Pragma: no-cache',
    'Cache-Control: no-store', 'TE: trailers', 'TE: gzip', 'Trailer: X-T', 'Keep-Alive: 300',
    'Proxy-Connection: keep-alive', 'Proxy: x', 'Early-Data: 1', 'Origin: http://x', 'X_Under: 1',
    'X.Dot: 1', 'X-Empty:', 'X-Blank:  ', "X-Tab:\tv\t", 'X-Same: 1', 'X-Same: 2', 'x-same: 3',
    'X-Quote: "a, b"', 'X-Comma: a,, b,', 'HTTP2-Settings: AAMAAABkAAQAAP__', 'X: 1', '1: x',
    'X-Colon: a:b', 'X-Long: ' . 'v' x 2_000, 'Content-Location: /x', 'Date: now', 'Alt-Used: x',
    'Upgrade-Insecure-Requests: 1', 'Sec-Fetch-Mode: x', 'Priority: u=1', 'From: x', 'Server: x');
my @CONNECTION = map { "Connection: $_" } ('keep-alive', 'keep-alive', 'close', 'Keep-Alive, TE',
    'close, keep-alive', 'X-Same', 'x-same, X-Quote', 'upgrade', 'Host', 'X-Forwarded-For',
    'cookie',
    'content-length', 'transfer-encoding', '', ',', 'keep-alive ,', 'CLOSE', '"close"', 'closed',
    'close;x', 'te, close', 'Via', 'X-Request-ID');
my @EXPECT = map { "Expect: $_" } ('100-continue', '100-continue', '100-Continue', '200-ok', '',
    '100-continue, x', '100-continue;x');
my @UPGRADE = map { [split /\|/] } ('Upgrade: websocket|Connection: Upgrade',
    'Upgrade: websocket|Connection: upgrade|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: x',
    'Upgrade: websocket', 'Upgrade: h2c|Connection: Upgrade, HTTP2-Settings|HTTP2-Settings: AAMA',
    'Upgrade: foo/1|Connection: upgrade', 'Upgrade: websocket, foo|Connection: upgrade',
    'Upgrade: TLS/1.0|Connection: Upgrade', 'Upgrade:|Connection: upgrade',
    'Upgrade: WebSocket|Connection: keep-alive, Upgrade', 'Upgrade: h2c', 'Connection: upgrade');
my @WRONG = ('NoColon', ': empty', 'X Y: blank', "X\t: tab", 'X : blank', "X-Nul: a\0b", "X\0: nul",
    "X-Cr: a\rb", "X-Lf: a\nb", "X-Ctl: \x01", "X-Del: \x7f", "X-High: \xe4\xff", "X-\xe4: high",
    'X(Y): x', 'X"Y: x', ' X-Folded: x', "\tfolded", 'X-Fold: a', ' ', 'X-Huge: ' . 'w' x 8_100,
    'X-Huge: ' . 'w' x 8_190, 'X-Huge: ' . 'w' x 9_000, 'X-Space:    ' . 'y' x 8_170,
    'X[: x', 'X@: x',
    'X/Y: x', "X-Bell: \a", "X-Vt: a\x0bb", 'X=Y', "Cookie: \x80", 'N' x 9_000 . ': x');

sub fields {
    my @fields = map { pick(@FIELDS) } 1 .. rand 5;
    push @fields, pick(@CONNECTION) if chance(0.15);
    push @fields, pick(@EXPECT) if chance(0.04);
    push @fields, @{ pick(@UPGRADE) } if chance(0.05);
    push @fields, map { pick(@WRONG) } 1 .. rand 3 if chance(0.06);
    push @fields, map { "X-$_: v" } 1 .. pick(80, 95, 97, 98, 99, 100, 105) if chance(0.01);
    return @fields;
}

# ---- bodies ---------------------------------------------------------------------------------

sub content { return substr 'The quick brown fox jumps over the lazy dog. ' x 1_000, 0, $_[0] }

sub chunks {
    my ($odd) = @_;
    my $body = '';
    for (0 .. rand 4) {
        my $size = pick(1, 3, 10, 16, 100, 1_000, chance(0.05) ? 20_000 : 5);
        my $line = sprintf pick('%x', '%x', '%X', '%04x'), $size;
        $line .= pick(';a', ';a=b', '; a="b"', ' ;x', "\t", ' ') if chance(0.1);
        my $end = "\r\n";
        if ($odd && chance(0.3)) {
            $line = pick("+$line", "-$line", "0x$line", " $line", "$line,", '', 'g', "${line}g",
                'f' x 17, '0' x 30 . $line, "$line;" . 'e' x 9_000, "$line\0", "$line;\x01",
                "$line;\n", 'ffffffffffffffff', '7fffffffffffffff', "$line;a=\"\r", '1 1');
        }
        $end = pick("\n", "\r", '', "XX", " \r\n") if $odd && chance(0.15);
        $body .= $line . ($odd ? mostly(0.1, "\r\n", "\n", "\r") : "\r\n") . content($size) . $end;
    }
    return $body if $odd && chance(0.1);
    my $last = $odd ? mostly(0.1, '0', '00', '0;x', '000000', '0 ', '-0', '') : '0';
    my @trailers = chance(0.15) ? map {
        pick('X-T: 1', 'X-Trailer: 2', 'Content-Length: 5', 'Host: x', 'X-T:', $odd ? @WRONG : ())
    } 0 .. rand 2 : ();
    return $body . join("\r\n", $last, @trailers, '', '');
}

# (fields, body)
sub framed {
    my $kind = rand;
    return ([], '') if $kind < 0.15;
    if ($kind < 0.5) {
        my $body = content(pick(0, 1, 5, 10, 100, 4_000, chance(0.1) ? 40_000 : 7));
        return (['Content-Length: ' . length $body], $body);
    }
    return (['Transfer-Encoding: chunked'], chunks(0)) if $kind < 0.75;
    return (['Transfer-Encoding: chunked'], chunks(1)) if $kind < 0.87;
    my $body = content(5);
    return @{ pick(
        [['Content-Length: 5', 'Content-Length: 5'], $body], [['Content-Length: 5, 5'], $body],
        [['Content-Length: 5', 'Content-Length: 6'], $body], [['Content-Length: +5'], $body],
        [['Content-Length: -5'], $body], [['Content-Length: 0x5'], $body],
        [['Content-Length: 5 '], $body], [['Content-Length: 05'], $body],
        [['Content-Length:'], $body], [['Content-Length: 5;'], $body],
        [['Content-Length: 99999999999999999999'], $body], [['Content-Length: 4'], $body],
        [['Content-Length: 500'], $body], [['Content-Length: 2000000'], $body],
        [['Content-Length : 5'], $body], [['Content-Length: 5', 'Transfer-Encoding: chunked'],
            chunks(0)],
        [['Transfer-Encoding: chunked', 'Content-Length: 5'], chunks(0)],
        [['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], chunks(0)],
        [['Transfer-Encoding: gzip, chunked'], chunks(0)], [['Transfer-Encoding: identity'], $body],
        [['Transfer-Encoding: Chunked'], chunks(0)], [['Transfer-Encoding: xchunked'], chunks(0)],
        [['Transfer-Encoding: chunked;q=1'], chunks(0)], [['Transfer-Encoding:'], $body],
        [['Transfer-Encoding: chunked, gzip'], chunks(0)],
        [["Transfer-Encoding:\tchunked\t"], chunks(0)],
        [['Transfer-Encoding: ,chunked'], chunks(0)], [['Transfer-Encoding : chunked'], chunks(0)],
        [["Transfer-Encoding: \x0bchunked"], chunks(0)],
        [['Transfer-Encoding: "chunked"'], chunks(0)],
    ) };
}

# ---- requests -------------------------------------------------------------------------------

# In pieces that belong together, so that a stream can be cut down by leaving some out.
sub odd_request {
    my $method = method();
    my ($framing, $body) = ([], '');
    ($framing, $body) = framed() if $method =~ /^(?:POST|PUT|PATCH)$/ || chance(0.05);
    my $blank = mostly(0.01, ' ', '  ', "\t", '');
    my @fields = (host_fields(), fields(), @$framing);
    if (chance(0.1)) {
        my $other = int rand @fields;
        @fields[0, $other] = @fields[$other, 0];
    }
    my @lines = (mostly(0.03, '', "\r\n", "\n", ' ', "\r\n\r\n", "\0"),
        join($blank, $method, target(), version()) . eol(), map { $_ . eol() } @fields);
    return (@lines, mostly(0.01, "\r\n", "\n", '', " \r\n"), $body);
}

sub plain_request {
    my $method = pick(qw(GET GET HEAD POST PUT DELETE OPTIONS));
    my ($framing, $body) = ('', '');
    if ($method =~ /^P/) {
        $body = content(int rand 300);
        $framing = 'Content-Length: ' . length($body) . "\r\n";
    }
    return ("$method /plain/" . int(rand 1_000) . " HTTP/1.1\r\n", "Host: $HOST\r\n", $framing,
        "\r\n", $body);
}

sub in_pieces {
    my (@parts) = @_;
    my $bytes = join '', @parts;
    my $way = rand;
    return $bytes if $way < 0.5;
    return @parts if $way < 0.7;
    return $bytes =~ /(.)/gs if $way < 0.75 && length $bytes < 300;
    my @pieces;
    while (length $bytes) {
        push @pieces, substr $bytes, 0, 1 + int rand(1.3 * length $bytes), '';
    }
    return @pieces;
}

# ---- answers --------------------------------------------------------------------------------

my @ANSWER_FIELDS = ('Content-Type: text/html', 'X-A: 1', 'X-A: 2', 'Set-Cookie: a=b; Path=/up',
    'Set-Cookie: c=d; Domain=up.test', 'Location: http://127.0.0.1:{PORT}/up/x', 'Location: /x',
    'Location: http://elsewhere.test/', 'Content-Location: http://127.0.0.1:{PORT}/y',
    'Refresh: 5; url=http://127.0.0.1:{PORT}/z', 'URI: http://127.0.0.1:{PORT}/u', 'Server: up',
    'Date: Sat, 01 Jan 2000 00:00:00 GMT', 'Connection: close', 'Connection: X-A', 'Keep-Alive: 5',
    'Connection: keep-alive', 'Via: 1.0 up', 'ETag: "x"', 'Vary: Accept', 'Cache-Control: no-cache',
    'WWW-Authenticate: Basic realm="x"', 'Proxy-Authenticate: Basic', 'Upgrade: foo',
    'Trailer: X-T', 'Proxy-Connection: close', 'Age: 5',
    'Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT',
    'Content-Encoding: gzip', 'Accept-Ranges: bytes', 'X-Empty:', 'Link: </x>; rel=preload',
    'Expires: 0', 'Allow: GET', 'Warning: 110 - x', 'Retry-After: 1', 'Content-Language: de',
    'Content-Disposition: inline', 'X-Pad: avoid', 'Proxy-Status: up; error=x', "X-High: \xe4");
my @ANSWER_WRONG = ('NoColon', ': x', 'X Y: x', 'X : x', "X-Nul: \0", "X-Cr: a\rb", "X-Ctl: \x01",
    ' folded', 'Content-Length: 5', 'Content-Length: x', 'Transfer-Encoding: gzip', "X-\xe4: x",
    'Transfer-Encoding: chunked', 'X-Huge: ' . 'w' x 9_000, 'X-Huge: ' . 'w' x 70_000);
my @STATUS_LINES = ('HTTP/1.0 200 OK', 'HTTP/1.1 200', 'HTTP/1.1 200 ', 'HTTP/1.1  200 OK',
    'HTTP/1.1 99 X', 'HTTP/1.1 1000 X', 'HTTP/1.1 abc X', 'HTTP/2.0 200 OK', 'HTTP/1.2 200 OK', '',
    'ICY 200 OK', 'garbage', "HTTP/1.1 200 O\0K", "HTTP/1.1 200 \xe4", 'http/1.1 200 OK',
    'HTTP/1.1 600 Six', 'HTTP/1.1 999 X', 'HTTP/1.1 101 Switching', 'HTTP/1.1 000 X',
    ' HTTP/1.1 200', 'HTTP/1.1 200 ' . 'r' x 500, "HTTP/1.1\t200 OK", 'HTTP/1.1 199 Odd',
    'HTTP/1.1 299 My Own');

sub interim {
    return '' if chance(0.9);
    return join '', map { "$_\r\n\r\n" } map { pick('HTTP/1.1 100 Continue',
        'HTTP/1.1 102 Processing', "HTTP/1.1 103 Early Hints\r\nLink: </x>", 'HTTP/1.1 150 Odd',
        "HTTP/1.1 100 Go\r\nX-I: 1",
        "HTTP/1.1 103 Hints\r\nContent-Length: 3\r\nConnection: close") } 0 .. rand 2;
}

# An answer for RProxy::Conversations.
sub answer {
    my $status = mostly(0.4, '200 OK', '204 No Content', '304 Not Modified', '302 Found',
        '404 Not Found', '500 Oops', '503 Busy', '201 Created', '206 Partial', '400 Bad',
        '401 Auth', '407 Proxy', '413 Large', '205 Reset', '426 Upgrade', '502 Bad',
        '421 Misdirected',
        '408 Slow', '501 No', '100 Continue', '417 No', '300 Many', '301 Moved', '207 Multi');
    my $body = content(pick(0, 1, 10, 1_000, chance(0.1) ? 40_000 : 20));
    my @fields = map { pick(@ANSWER_FIELDS) } 1 .. rand 5;
    my %answer = (then => '', odd => 0);
    my $framing = rand;
    my $sent = $body;
    if ($status =~ /^(?:204|304)/) {
        $sent = '';
        push @fields, 'Content-Length: ' . length $body if chance(0.3);
    }
    elsif ($framing < 0.5) {
        push @fields, 'Content-Length: ' . length $body;
    }
    elsif ($framing < 0.8) {
        push @fields, 'Transfer-Encoding: chunked';
        $answer{odd} = chance(0.1);
        $sent = chunks($answer{odd});
    }
    else {
        $answer{then} = 'close';
    }
    my $line = mostly(0.05, "HTTP/1.1 $status", @STATUS_LINES);
    $answer{odd} = 1 if $line ne "HTTP/1.1 $status" || $status =~ /^1/;
    if (chance(0.06)) {
        $answer{odd} = 1;
        splice @fields, rand @fields, 0, pick(@ANSWER_WRONG);
        $answer{then} ||= 'close' if chance(0.5);
    }
    my $eol = mostly(0.02, "\r\n", "\n");
    $answer{odd} = 1 if $eol eq "\n";
    my $head = interim() . join($eol, $line, @fields, '', '');
    if (chance(0.04)) {
        $sent = substr $sent, 0, rand length $sent;
        @answer{qw(then odd)} = (pick('close', 'reset'), 1);
    }
    elsif (chance(0.02)) {
        $sent .= 'more than was said';
    }
    if (chance(0.02)) {
        ($head, $sent) = (substr($head, 0, rand length $head), '');
        @answer{qw(then odd)} = (pick('close', 'reset'), 1);
    }
    $answer{then} = 'close' if $answer{then} eq '' && $line =~ /^(?!HTTP.1.1 [2-5]\d\d )/;
    $answer{bytes} = $head . $sent;
    $answer{head_only} = $head;
    return \%answer;
}

my $SWITCH = { then => 'tunnel',
    bytes => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        . "Connection: Upgrade\r\n\r\n" };

# ---- conversations --------------------------------------------------------------------------

# Up to four requests, one of them odd, or usual ones with odd answers. parts: the same bytes as
# pieces, in parts that can be left out.
#
# Behind an answer that may break off the client sends nothing more: unread bytes would turn the end
# of the connection into a reset at some times and not at others. A client that ends its direction
# does so in the middle of its first request: behind a whole one it counts as gone, and how far the
# request gets is a matter of time.
sub conversation {
    my ($self) = @_;
    my $count = pick(1, 1, 1, 2, 2, 3, 4);
    my $odd = chance(0.75) ? int rand $count : -1;
    my (@parts, @answers);
    for my $number (0 .. $count - 1) {
        my $is_odd = $number == $odd || ($odd >= 0 && chance(0.2));
        push @parts, $is_odd ? odd_request() : plain_request();
        $answers[$number] = answer() if $odd < 0 && chance(0.8);
        last if $answers[$number] && $answers[$number]{odd};
    }
    $answers[0] //= $SWITCH if grep { /^Upgrade:/i } @parts;
    my $end = @answers && $answers[-1] && $answers[-1]{odd} ? 'wait' : 'sentinel';
    if (chance(0.05)) {
        my $bytes = join '', odd_request();
        @parts = (substr $bytes, 0, rand length $bytes);
        $end = 'half';
    }
    @parts = grep { length } @parts;
    return { parts => \@parts, pieces => [in_pieces(@parts)], answers => \@answers, end => $end };
}

1;
