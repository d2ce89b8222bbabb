#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Hostile upstreams: what is malformed becomes a 502 with a reason, or is visibly broken where its
# head has left already; it is never repaired and forwarded, its connection is never used again, and
# nothing of it becomes the answer to another request.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

# The upstream answers /N with the bytes of case N and waits until the proxy has closed the
# connection; /close/N closes it itself. Anything else gets "fine" and keeps the connection.
sub started {
    my ($t, $cases, @lines) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target =~ m{^(/close)?/(\d+)}) {
                $conn->write($cases->[$2]);
                return if $1;
                $conn->wait_closed;
                return $conn->notify('closed');
            }
            $conn->respond(200, [], 'fine') or last;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/', @lines);
    $t->start;
    return $up;
}

# [name, bytes] pairs: each is refused with 502.
sub all_refused {
    my ($t, @cases) = @_;
    my $up = started($t, [map { $_->[1] } @cases]);
    my $client = $t->client;
    for my $n (0 .. $#cases) {
        my $response = $client->get("/$n");
        is($response->status, 502, $cases[$n][0]) or next;
        like($response->header('Proxy-Status'),
            qr/; error=(?:http_protocol_error|http_upgrade_failed)$/, '  and says why');
        unlike($response->body, qr/poison|evil/i, '  with nothing of the bytes');
        is($response->header('X-Evil'), undef);
        ok(eval { $up->wait_event('closed') }, '  and closes the connection') or diag($@);
        $client = $t->client unless $t->is_h2 || !defined $client->closed;
    }
    is($client->get('/fine')->body, 'fine', 'the proxy goes on');
    my $count = () = $t->error_log =~ /RP011[16]: /g;
    is($count, scalar(@cases), 'each is in the log');
    return $up;
}

sub http { return "HTTP/1.1 200 OK\r\n" . join('', map { "$_\r\n" } @_) . "\r\n" }

behaviour 'malformed status lines', sub {
    my ($t) = @_;
    my $rest = "Content-Length: 6\r\n\r\npoison";
    all_refused($t,
        ['garbage' => "evil\r\n\r\n"], ['no version' => "200 OK\r\n$rest"],
        ['an empty line first' => "\r\nHTTP/1.1 200 OK\r\n$rest"],
        ['a blank first' => " HTTP/1.1 200 OK\r\n$rest"],
        ['lower case' => "http/1.1 200 OK\r\n$rest"], ['ICY' => "ICY 200 OK\r\n$rest"],
        ['HTTP/2.0' => "HTTP/2.0 200 OK\r\n$rest"], ['HTTP/1.2' => "HTTP/1.2 200 OK\r\n$rest"],
        ['HTTP/1.11' => "HTTP/1.11 200 OK\r\n$rest"], ['no status' => "HTTP/1.1\r\n$rest"],
        ['letters' => "HTTP/1.1 2x0 OK\r\n$rest"], ['negative' => "HTTP/1.1 -20 OK\r\n$rest"],
        ['two digits' => "HTTP/1.1 20 OK\r\n$rest"], ['status 99' => "HTTP/1.1 099 OK\r\n$rest"],
        ['status 600' => "HTTP/1.1 600 OK\r\n$rest"], ['status 999' => "HTTP/1.1 999 OK\r\n$rest"],
        ['four digits' => "HTTP/1.1 2000 OK\r\n$rest"], ['no blank' => "HTTP/1.1 200OK\r\n$rest"],
        ['two blanks' => "HTTP/1.1  200 OK\r\n$rest"], ['TAB' => "HTTP/1.1\t200 OK\r\n$rest"],
        ['bare LF' => "HTTP/1.1 200 OK\n$rest"],
        ['CR in the reason' => "HTTP/1.1 200 OK\rX-Evil: yes\r\n$rest"],
        ['LF in the reason' => "HTTP/1.1 200 OK\nX-Evil: yes\r\n$rest"],
        ['NUL in the reason' => "HTTP/1.1 200 O\0K\r\n$rest"],
        ['ESC in the reason' => "HTTP/1.1 200 O\x1b[31mK\r\n$rest"],
        ['DEL in the reason' => "HTTP/1.1 200 O\x7fK\r\n$rest"],
        ['HTTP/0.9' => '<html>evil poison</html>' . "\r\n" x 2],
        ['an HTTP/2 peer' => "\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0\0\5\0\xff\xff\xff"],
        ['a TLS alert' => "\x15\x03\x03\0\2\2\x28"], ['an SSH banner' => "SSH-2.0-evil_1\r\n"],
        ['an SMTP banner' => "220 evil ESMTP\r\n"], ['a request' => "GET / HTTP/1.1\r\n$rest"],
        ['NULs' => "\0" x 100], ['a long line' => 'HTTP/1.1 200 ' . 'x' x 70_000],
    );
};

behaviour 'malformed fields', sub {
    my ($t) = @_;
    my $rest = "Content-Length: 6\r\n\r\npoison";
    my $start = "HTTP/1.1 200 OK\r\n";
    all_refused($t,
        ['bare LF' => "${start}X-A: b\nX-Evil: yes\r\n$rest"],
        ['bare CR' => "${start}X-A: b\rX-Evil: yes\r\n$rest"],
        ['CR CR LF' => "${start}X-A: b\r\r\n$rest"],
        ['an empty line of LFs' => "${start}X-A: b\n\nX-Evil: yes\r\n$rest"],
        ['NUL in a value' => "${start}X-A: b\0c\r\n$rest"],
        ['NUL in a name' => "${start}X\0A: b\r\n$rest"],
        ['ESC in a value' => "${start}X-A: \x1b[0m\r\n$rest"],
        ['DEL in a value' => "${start}X-A: b\x7f\r\n$rest"],
        ['blank in a name' => "${start}X A: b\r\n$rest"],
        ['blank before the colon' => "${start}X-A : b\r\n$rest"],
        ['empty name' => "$start: b\r\n$rest"], ['no colon' => "${start}X-A\r\n$rest"],
        ['folded' => "${start}X-A: b\r\n X-Evil: yes\r\n$rest"],
        ['folded with TAB' => "${start}X-A: b\r\n\tX-Evil: yes\r\n$rest"],
        ['folded at once' => "$start X-A: b\r\n$rest"],
        ['quotes in a name' => qq{${start}"X": b\r\n$rest}],
        ['bytes over 127 in a name' => "${start}X-\xc3\xa4: b\r\n$rest"],
        ['Content-Type with CR' => "${start}Content-Type: text/html\rX-Evil: yes\r\n$rest"],
        ['Set-Cookie with NUL' => "${start}Set-Cookie: a=\0; Path=/\r\n$rest"],
        ['Location with LF' => "HTTP/1.1 302 Found\r\nLocation: /\nX-Evil: yes\r\n$rest"],
        ['too many' => $start . "X: y\r\n" x 201 . $rest],
        ['too large' => $start . 'X: ' . 'y' x 70_000 . "\r\n$rest"],
        ['too large together' => $start . ('X: ' . 'y' x 1000 . "\r\n") x 70 . $rest],
    );
};

behaviour 'ambiguous framing', sub {
    my ($t) = @_;
    my $te = 'Transfer-Encoding: chunked';
    my $body = "6\r\npoison\r\n0\r\n\r\n";
    all_refused($t,
        (map { [$_->[0] => http(@{ $_->[1] }) . $body] }
            ['CL and TE' => ['Content-Length: 6', $te]],
            ['TE and CL' => [$te, 'Content-Length: 6']],
            ['CL twice' => ['Content-Length: 6', 'Content-Length: 7']],
            ['CL twice, the same' => ['Content-Length: 6', 'Content-Length: 6']],
            ['CL list' => ['Content-Length: 6, 6']], ['CL negative' => ['Content-Length: -1']],
            ['CL plus' => ['Content-Length: +6']], ['CL hexadecimal' => ['Content-Length: 0x6']],
            ['CL huge' => ['Content-Length: 99999999999999999999']],
            ['CL wraps' => ['Content-Length: 18446744073709551622']],
            ['CL empty' => ['Content-Length:']], ['CL text' => ['Content-Length: six']],
            ['CL blank' => ['Content-Length: 6 6']], ['TE gzip' => ['Transfer-Encoding: gzip']],
            ['TE identity' => ['Transfer-Encoding: identity']],
            ['TE gzip, chunked' => ['Transfer-Encoding: gzip, chunked']],
            ['TE chunked twice' => [$te, $te]],
            ['TE chunked, chunked' => ['Transfer-Encoding: chunked, chunked']],
            ['TE xchunked' => ['Transfer-Encoding: xchunked']],
            ['TE empty' => ['Transfer-Encoding:']]),
        ['TE with HTTP/1.0' => "HTTP/1.0 200 OK\r\n$te\r\n\r\n$body"],
        ['204 with TE' => "HTTP/1.1 204 No Content\r\n$te\r\n\r\n$body"],
        ['1xx with TE' => "HTTP/1.1 103 Early Hints\r\n$te\r\n\r\n$body"
                . http('Content-Length: 0')],
        ['1xx, then garbage' => "HTTP/1.1 103 Early Hints\r\n\r\nevil\r\n\r\n"],
        ['1xx without end' => "HTTP/1.1 103 Early Hints\r\n\r\n" x 40 . http('Content-Length: 0')],
        ['101 unasked' => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                . "Connection: Upgrade\r\n\r\npoison"],
        ['101 to something' => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n"
                . "Connection: Upgrade\r\n\r\npoison"],
    );
};

behaviour 'a head that ends too early', sub {
    my ($t) = @_;
    my @cases = ("HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\n", 'HTT', "\r",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n");
    my $up = started($t, \@cases);
    for my $n (0 .. $#cases) {
        my $response = $t->get("/close/$n");
        is($response->status, 502);
        like($response->header('Proxy-Status'), qr/error=http_(?:response_incomplete|protocol)/);
    }
    is(scalar($up->requests), scalar(@cases), 'what has begun is not asked for again');
};

behaviour 'malformed chunks break the response', sub {
    my ($t) = @_;
    my %bad = (
        'no size' => "\r\npoison", 'letters' => "xyz\r\n",
        'negative' => "-6\r\npoison\r\n0\r\n\r\n",
        'plus' => "+6\r\npoison\r\n0\r\n\r\n", '0x' => "0x6\r\npoison\r\n0\r\n\r\n",
        'huge' => 'f' x 17 . "\r\npoison", 'blank first' => " 6\r\npoison\r\n0\r\n\r\n",
        'bare LF' => "6\npoison\r\n0\r\n\r\n", 'no CRLF behind' => "6\r\npoisonXX0\r\n\r\n",
        'short' => "7\r\npoison\r\n0\r\n\r\n", 'extension flood' => '6;' . 'x' x 100_000 . "\r\n",
        'NUL in an extension' => "6;\0\r\npoison\r\n0\r\n\r\n",
        'CR in an extension' => "6;a\rb\r\npoison\r\n0\r\n\r\n",
        'bare LF behind' => "6\r\npoison\n0\r\n\r\n", 'leading zeros' => '0' x 10_000 . "6\r\n",
        'trailer without colon' => "0\r\nX-Evil\r\n\r\n",
        'trailer folded' => "0\r\nX-A: b\r\n c\r\n\r\n",
        'trailer with NUL' => "0\r\nX-A: \0\r\n\r\n", 'trailer with CR' => "0\r\nX-A: b\rc\r\n\r\n",
        'CL in a trailer' => "0\r\nContent-Length: 3\r\n\r\n",
        'TE in a trailer' => "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        'trailer flood' => "0\r\n" . "X-A: b\r\n" x 5_000 . "\r\n",
    );
    my @names = sort keys %bad;
    my $up = started($t,
        [map { http('Transfer-Encoding: chunked') . "5\r\nfirst\r\n$bad{$_}" } @names]);
    for my $n (0 .. $#names) {
        my $response = $t->get("/$n");
        ok(!$response->complete, "$names[$n]: the client sees that it broke off")
            or diag($response->body);
        unlike($response->body, qr/\Afirst.*XX/s);
        is_deeply($response->trailers, [], 'and no trailers') if ($response->status // '') eq '200';
        ok(eval { $up->wait_event('closed') }, '  and the connection is closed') or diag($@);
    }
    is($t->get('/fine')->body, 'fine');
    like($t->error_log, qr/RP0111: .*broke off/);
};

behaviour 'a body that ends too early breaks the response', sub {
    my ($t) = @_;
    my @cases = (http('Content-Length: 100') . 'ten bytes.', http('Content-Length: 1'),
        http('Transfer-Encoding: chunked') . "a\r\nten bytes.", http('Transfer-Encoding: chunked'),
        http('Transfer-Encoding: chunked') . "a\r\nten bytes.\r\n",
        http('Transfer-Encoding: chunked') . "a\r\nten bytes.\r\n0\r\n",
        http('Transfer-Encoding: chunked') . "a\r\nten bytes.\r\n0\r\nX-Tra");
    my $up = started($t, \@cases);
    for my $n (0 .. $#cases) {
        my $response = $t->get("/close/$n");
        # An HTTP/2 stream may be reset before its head has left.
        is($response->status, 200) if !$t->is_h2 || defined $response->status;
        ok(!$response->complete, "case $n") or diag($response->body);
    }
    my $count = () = $t->error_log =~ /RP0110: .*broke off/g;
    is($count, scalar(@cases));
};

behaviour 'bytes behind a response are nobody\'s', sub {
    my ($t) = @_;
    my $poison = http('Content-Length: 6', 'X-Evil: yes') . 'poison';
    my %head = map { $_ => "HTTP/1.1 $_ Whatever\r\nX-Case: $_\r\n" } 200, 204, 304;
    my @cases = (
        ['GET', "$head{200}Content-Length: 4\r\n\r\nbody", 'body'],
        ['GET', "$head{200}Content-Length: 0\r\n\r\n", ''],
        ['GET', "$head{200}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 'body'],
        ['GET', "$head{204}\r\n", ''], ['GET', "$head{304}\r\n", ''],
        ['GET', "$head{204}Content-Length: 4\r\n\r\nbody", ''],
        ['GET', "$head{304}Content-Length: 4\r\n\r\nbody", ''],
        ['HEAD', "$head{200}Content-Length: 4\r\n\r\nbody", ''],
        ['HEAD', "$head{200}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", ''],
        ['HEAD', "$head{200}Content-Length: 4\r\n\r\n", ''],
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        setsockopt $conn->socket, IPPROTO_TCP, TCP_NODELAY, 1;    # written is sent
        while (my $request = $conn->read_request) {
            if ($request->target =~ m{^/(late)?(\d+)}) {
                $conn->write($cases[$2][1] . ($1 ? '' : $poison));
                if ($1) {
                    $conn->wait_for('more');
                    $conn->write($poison);
                    $conn->notify('written');
                }
                $conn->wait_closed;
                return;
            }
            $conn->respond(200, [], 'fine') or last;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $late ('', 'late') {
        for my $n (0 .. $#cases) {
            my ($method, $bytes, $body) = @{ $cases[$n] };
            my $client = $t->client;
            my $response = $client->request($method, "/$late$n");
            my ($status) = $bytes =~ /X-Case: (\d+)/;
            is($response->status, $status, "$late $method, $status");
            is($response->body, $body);
            if ($late) {
                $up->signal('more');
                $up->wait_event('written');
            }
            $client = $t->client unless $t->is_h2 || !defined $client->closed;
            for my $path ('/fine', '/fine2') {
                my $next = $client->get($path);
                is($next->body, 'fine', 'the next exchange gets its own answer');
                is($next->header('X-Evil'), undef);
            }
        }
    }
};

behaviour 'a response to no request is nobody\'s', sub {
    my ($t) = @_;
    my $poison = http('Content-Length: 6') . 'poison';
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        $conn->write($poison . $poison) if $conn->number == 1;
        while (my $request = $conn->read_request) {
            $conn->respond(200, [], 'fine') or last;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    # The first request cannot tell that its answer was there before it was asked for, but it has to
    # stay alone with it.
    like($t->get('/')->status, qr/^(?:200|502)$/);
    is($t->get('/')->body, 'fine') for 1 .. 3;
};

behaviour 'what is unusual but valid passes unchanged', sub {
    my ($t) = @_;
    my @cases = (
        "HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 299\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 Un usual \xe4 (text)!\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length:2\r\nX-A:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nCONTENT-length: 02\r\nX-A: \t b \t\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n01;a=b\r\no\r\n1\r\nk\r\n00\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: \xc3\xa4\xff\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" . "X-Many: 1\r\n" x 150 . "\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: " . 'x' x 30_000 . "\r\n\r\nok",
    );
    my $up = started($t, \@cases);
    for my $n (0 .. $#cases) {
        my $response = $t->get("/close/$n");
        like($response->status, qr/^2(?:00|99)$/, "case $n");
        is($response->body, 'ok');
        ok($response->complete);
        next if $t->is_h2 || $cases[$n] !~ /^HTTP\S+ (\d+) ?(.*)\r\n/;
        is($response->status, $1);
        is($response->reason, $2, 'reason phrase');
    }
};

done_testing;
