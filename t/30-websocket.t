#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# WebSockets and other tunnels: who gets one, that bytes travel both ways whatever the timing, and
# how each end is passed on. In the lane h2 a WebSocket is an extended CONNECT (RFC 8441).
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::HTTP1;
use RProxy::Tunnel;
use RProxy::WebSocket;

use constant MIB => 1_048_576;

my %TO_WEBSOCKET = (Upgrade => 'websocket', Connection => 'Upgrade');

# Every eight bytes say where they are, so that nothing can be lost, doubled or swapped unseen.
sub content {
    my ($size) = @_;
    return substr join('', map { sprintf "%07x\n", $_ } 0 .. $size / 8), 0, $size;
}

# httpd in front of one upstream, with what tunnels need; returns the upstream.
sub proxied {
    my ($t, $lines, @upstream) = @_;
    my $up = $t->upstream(@upstream);
    $t->server_config(RProxy::Tunnel->directives($t));
    $t->config(@{ $lines // [] }, 'RProxyPass / ' . $up->url . '/');
    $t->access_format('%>s %X %{rproxy-error}e "%r"');
    $t->start;
    return $up;
}

# An upstream's handshake, as bytes: more can be written right behind them.
sub accept_bytes {
    my ($conn) = @_;
    my $request = $conn->read_head // die "no request\n";
    return RProxy::HTTP1::response_bytes(101, [%TO_WEBSOCKET, 'Sec-WebSocket-Accept' =>
            RProxy::WebSocket::accept_value($request->header('Sec-WebSocket-Key') // '')]);
}

behaviour 'a WebSocket is opened, carries messages both ways, and is closed', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        my $socket = RProxy::WebSocket->server($conn, headers => [
            'Sec-WebSocket-Protocol' => 'chat', 'X-Backend' => 'one', 'Keep-Alive' => 'timeout=5']);
        $socket->echo;
    });
    my $tunnel = RProxy::Tunnel->open($t, '/room?id=7', headers => [
        'Sec-WebSocket-Protocol' => 'chat, other', Origin => 'https://www.example.test',
        'X-Forwarded-For' => '1.2.3.4']);
    my $head = $tunnel->head;
    is($head->header('X-Backend'), 'one', 'fields of the answer arrive');
    is($head->header('Sec-WebSocket-Protocol'), 'chat', 'subprotocol');
    is($head->header('Keep-Alive'), undef, 'no hop-by-hop fields of the upstream');
    is($head->header('Content-Length') // $head->header('Transfer-Encoding'), undef, 'no framing');
    if (!$t->is_h2) {
        is(lc $head->header('Upgrade'), 'websocket', 'Upgrade');
        like($head->header('Connection'), qr/^upgrade$/i, 'Connection');
        is(scalar $head->headers_all('Sec-WebSocket-Accept'), 1, 'accepted key');
    }
    my $request = $up->request;
    is($request->method . ' ' . $request->target, 'GET /room?id=7', 'request to the upstream');
    is($request->header('Upgrade'), 'websocket', 'asks for the upgrade');
    is(lc $request->header('Connection'), 'upgrade', 'and for nothing else');
    is($request->header('Sec-WebSocket-Version'), 13, 'version');
    like($request->header('Sec-WebSocket-Key'), qr{^[A-Za-z0-9+/]{22}==$}, 'key');
    is($request->header('Sec-WebSocket-Protocol'), 'chat, other', 'subprotocols');
    is($request->header('Origin'), 'https://www.example.test', 'Origin');
    is($request->header('Host'), $t->host, 'Host');
    is($request->header('X-Forwarded-For'), '127.0.0.1', 'forwarding as for any request');
    is($request->header('Content-Length') // $request->header('Transfer-Encoding'), undef,
        'without a body');

    my $socket = RProxy::WebSocket->over($tunnel);
    for my $number (1 .. 100) {
        $socket->send_text("message $number");
        my $echoed = $socket->read_text;
        is($echoed, "message $number", 'echo') if $number == 1 || $echoed ne "message $number";
    }
    $socket->send_ping('are you there');
    my ($opcode, $payload) = $socket->read_frame;
    is($opcode, RProxy::WebSocket::PONG, 'a pong for the ping');
    is($payload, 'are you there', 'with its payload');
    $socket->send_frame(RProxy::WebSocket::BINARY, join('', map { chr } 0 .. 255));
    is(($socket->read_frame)[1], join('', map { chr } 0 .. 255), 'binary');
    $socket->send_close(1000, 'bye');
    ($opcode, $payload) = $socket->read_frame;
    is($opcode, RProxy::WebSocket::CLOSE, 'close');
    is($payload, pack('n', 1000) . 'bye', 'with its code');
    is($tunnel->read_rest, '', 'nothing behind it');
    is($tunnel->ended, 'eof', 'a clean end');
    $tunnel->close;
    like($t->wait_access_log(qr/room/), qr/^101 \S - "/, 'logged as what it was');
};

behaviour 'bytes that come together with the heads get through', sub {
    my ($t) = @_;
    my $early = content(100_000);
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        $conn->{duplex} = 1;
        my $head = accept_bytes($conn);
        my ($size) = $conn->{head}->target =~ /(\d+)/;
        $conn->write($head . substr $early, 0, $size);
        $conn->write($conn->read_exact($size));
        $conn->wait_closed;
    });
    for my $size (1, 5_000, 50_000, 100_000) {
        my $bytes = substr $early, 0, $size;
        my $tunnel = RProxy::Tunnel->open($t, "/$size", early => $bytes);
        ok($tunnel->read_exact($size) eq $bytes, "$size bytes behind the 101");
        ok($tunnel->read_exact($size) eq $bytes, "$size bytes behind the request");
        $tunnel->close;
    }
    is(scalar $up->connections, 4, 'one upstream connection each');
};

behaviour 'large messages travel both ways at once', sub {
    my ($t) = @_;
    my $body = content(MIB);
    my $up = proxied($t, [], record => 0, sub {
        my ($conn) = @_;
        $conn->{duplex} = 1;
        my $socket = RProxy::WebSocket->server($conn);
        $socket->send_frame(RProxy::WebSocket::BINARY, $body);
        $conn->notify('same') if ($socket->read_frame(30))[1] eq $body;
        $socket->send_text('got it');
        $conn->wait_closed;
    });
    my @tunnels = map { RProxy::Tunnel->open($t, "/$_") } 1 .. 2;
    for my $tunnel (@tunnels) {
        my $socket = RProxy::WebSocket->over($tunnel);
        $socket->send_frame(RProxy::WebSocket::BINARY, $body);
        ok(($socket->read_frame(30))[1] eq $body, '1 MiB to the client');
        is($socket->read_text, 'got it', 'and what follows');
        $up->wait_event('same');
    }
    pass('1 MiB to the upstream');
    $_->close for @tunnels;
};

# Not with mod_http2: a stream that cannot write waits in it.
behaviour 'a side that does not read holds up its own direction only', except => ['h2'], sub {
    my ($t) = @_;
    my $piece = content(MIB);
    my $up = proxied($t, [], record => 0, sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn));
        my $sent = 0;
        do {
            $sent += $conn->write_now(substr $piece, $sent % MIB);
        } until $sent > 64 * MIB || !can_write($conn);
        $conn->notify('held up') if $sent < 64 * MIB;
        $conn->notify('answered') if $conn->read_until(qr/\n/) eq "still here?\n";
        $conn->write(substr($piece, $sent % MIB) . 'end of the piece');
        $conn->wait_closed;
    });
    my $tunnel = RProxy::Tunnel->open($t, '/', client => { receive_buffer => 16_384 });
    $up->wait_event('held up');
    $tunnel->write("still here?\n");
    $up->wait_event('answered');
    my $pieces = 0;
    while ((my $begin = $tunnel->read_exact(16)) ne 'end of the piece') {
        my $same = $begin . $tunnel->read_exact(MIB - 16, 30) eq $piece;
        ok($same, 'wrong bytes') if !$same;
        $pieces++;
    }
    cmp_ok($pieces, '>', 0, 'all bytes arrive once they are read');
    $tunnel->close;
};

# False if the stream cannot be written for a while.
sub can_write {
    my ($stream) = @_;
    my $bits = '';
    vec($bits, $stream->socket->fileno, 1) = 1;
    return select undef, $bits, undef, 0.3;
}

behaviour 'the client ends its direction, the upstream goes on', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn));
        my $all = $conn->read_eof;
        $conn->wait_for('go');
        $conn->write("read to the end: $all");
        $conn->notify('closing');
    });
    my $tunnel = RProxy::Tunnel->open($t, '/');
    $tunnel->write('the last words');
    $tunnel->half_close;
    wait_until('the end at the upstream', undef, sub { return ($up->connections)[0]{closed} });
    is(($up->connections)[0]{closed}, 'eof', 'the upstream sees a clean end');
    $up->signal('go');
    is($tunnel->read_rest, 'read to the end: the last words', 'what it sends after it arrives');
    is($tunnel->ended, 'eof', 'up to its own end');
};

behaviour 'the upstream ends its direction, the client goes on', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn) . 'that is all');
        $conn->half_close;
        $conn->notify($conn->read_until(qr/!/));
        $conn->notify('end: ' . $conn->read_eof . $conn->closed);
    });
    my $tunnel = RProxy::Tunnel->open($t, '/');
    is($tunnel->read_rest, 'that is all', 'what was sent before the end');
    is($tunnel->ended, 'eof', 'a clean end');
    if ($t->is_h2) {
        # For mod_http2 and nghttp2 a stream is over with its response.
        $tunnel->close;
        wait_until('the end at the upstream', undef, sub { return ($up->connections)[0]{closed} });
        $up->expect_errors;
        return;
    }
    $tunnel->write('more!');
    $up->wait_event('more!');
    $tunnel->write('and more');
    $tunnel->half_close;
    $up->wait_event('end: and moreeof');
    pass('the upstream gets everything up to the clean end');
};

behaviour 'a tunnel to an upstream over TLS',
    lanes => ['event', 'prefork', 'h2', 'engine', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, ['RProxyTLS ca=' . $t->certs->ca_file], tls => 1, sub {
        my ($conn) = @_;
        $conn->{duplex} = 1;
        my $head = accept_bytes($conn);
        $conn->write($head . content(60_000));
        $conn->write($conn->read_exact(300_000));
        $conn->notify('end: ' . $conn->read_eof . $conn->closed);
        $conn->write('good bye');
    });
    my $tunnel = RProxy::Tunnel->open($t, '/', early => substr content(300_000), 0, 5_000);
    ok($tunnel->read_exact(60_000) eq content(60_000), 'bytes behind the 101');
    $tunnel->write(substr content(300_000), 5_000);
    ok($tunnel->read_exact(300_000) eq content(300_000), 'bytes both ways');
    $tunnel->half_close;
    $up->wait_event('end: eof');
    is($tunnel->read_rest, 'good bye', 'close_notify ends one direction only');
    is($tunnel->ended, 'eof', 'a clean end');
};

behaviour 'an upstream that dies ends the tunnel', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn) . 'hello');
        my $wish = $conn->read_until(qr/\n/);
        $conn->reset if $wish eq "reset\n";
    });
    for my $wish ("reset\n", "close\n") {
        my $tunnel = RProxy::Tunnel->open($t, '/');
        is($tunnel->read_exact(5), 'hello', 'open');
        $tunnel->write($wish);
        is($tunnel->read_rest, '', "the client sees the end after a $wish");
        $tunnel->close;
    }
    my @tunnels = map { RProxy::Tunnel->open($t, '/') } 1 .. 5;
    $_->read_exact(5) for @tunnels;
    $up->stop;
    $_->read_rest for @tunnels;
    pass('five at once');
    $_->close for @tunnels;
};

behaviour 'a client that dies ends the tunnel', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn) . 'hello');
        $conn->wait_closed;
        $conn->notify('gone');
    });
    for my $way (qw(abort close)) {
        my $tunnel = RProxy::Tunnel->open($t, '/');
        is($tunnel->read_exact(5), 'hello', 'open');
        $tunnel->$way;
        $up->wait_event('gone');
        pass("the upstream sees it: $way");
    }
    ok($t->wait_access_log(qr/^101/), 'logged');
};

behaviour 'RProxyTimeout tunnel= ends a tunnel in which nothing moves', sub {
    my ($t) = @_;
    my $up = proxied($t, ['RProxyTimeout tunnel=400ms'], sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
        $conn->notify('gone');
    });
    my $tunnel = RProxy::Tunnel->open($t, '/');
    my $socket = RProxy::WebSocket->over($tunnel);
    $socket->send_text('one');
    is($socket->read_text, 'one', 'open');
    is($tunnel->read_rest, '', 'the client sees the end');
    $tunnel->close;
    $up->wait_event('gone');
    like($t->wait_access_log(qr/^101/), qr/^101 \S tunnel-timeout /, 'the log says why');
};

behaviour 'traffic in either direction keeps it open',
    lanes => ['event', 'worker', 'h2', 'engine', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, ['RProxyTimeout tunnel=2s idle=1s first-byte=1s total=1s'], sub {
        my ($conn) = @_;
        $conn->write(accept_bytes($conn));
        $conn->read_exact(5);
        for my $number (1 .. 5) {
            $conn->quiet_for(0.5) or die "bytes from the client\n";
            $conn->write($number);
        }
        $conn->wait_closed;
    });
    my $tunnel = RProxy::Tunnel->open($t, '/');
    for my $number (1 .. 5) {
        $tunnel->quiet_for(0.5) or fail("bytes or an end before $number");
        $tunnel->write('x');
    }
    is($tunnel->read_exact(5), '12345', 'it outlives the time, and those for requests');
    $tunnel->close;
};

behaviour 'an answer other than 101 is no tunnel (CVE-2019-17567)', sub {
    my ($t) = @_;
    my @secret = ('<Location /secret>', 'Require all denied', '</Location>');
    my $up = proxied($t, $t->is_h2 ? [] : \@secret, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my ($status) = $request->target =~ m{^/(\d+)};
            my @upgrade = $status eq '426' ? (Upgrade => 'websocket', Connection => 'Upgrade') : ();
            $conn->respond($status, ['X-Answer' => $status, @upgrade],
                $status == 204 ? '' : "answer $status");
        }
    });
    for my $status (200, 204, 302, 401, 404, 426, 502) {
        my $tunnel = RProxy::Tunnel->ask($t, "/$status");
        my $response = $tunnel->response;
        # To an HTTP/2 client, success would mean a tunnel: it becomes a 502.
        my $expected = $t->is_h2 && $status < 300 ? 502 : $status;
        is($response->status, $expected, "$status: is not taken for success");
        ok($response->complete, 'complete');
        next if $t->is_h2;
        is($response->header('X-Answer'), $status, 'the answer itself');
        is($response->body, $status == 204 ? '' : "answer $status", 'its body');
        is($response->header('Upgrade'), undef, 'no Upgrade');
        my $after = $tunnel->client->get('/secret');
        is($after->status, 403, 'what follows is a request that httpd checks');
    }
    is_deeply([grep { /secret/ } map { $_->target } $up->requests], [], 'nothing got by');
    # In prefork each client's child has connections of its own.
    is(scalar $up->connections, 1, 'and the upstream connection is kept')
        if !$t->is_h2 && $t->mpm ne 'prefork';
};

behaviour 'a request right behind a refused upgrade is a request',
    except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, ['<Location /secret>', 'Require all denied', '</Location>']);
    $up->reply_with(200, ['X-A' => 1], 'no');
    my $early = "GET /secret HTTP/1.1\r\nHost: " . $t->host . "\r\n\r\n";
    my $tunnel = RProxy::Tunnel->ask($t, '/', early => $early);
    is($tunnel->response->body, 'no', 'the answer');
    is($tunnel->client->read_response->status, 403, 'and the next one from httpd');
    is(scalar $up->requests, 1, 'which the upstream does not see');
};

behaviour 'a 101 that does not fit is a 502', sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        my $request = $conn->read_head;
        my ($upgrade) = $request->target =~ m{^/(\w+)};
        $conn->respond(101, $upgrade eq 'none' ? [Connection => 'Upgrade']
            : [Upgrade => $upgrade, Connection => 'Upgrade']);
        $conn->write('bytes of another protocol');
        $conn->wait_closed;
        $conn->notify('closed');
    });
    my %ask = (
        'nobody asked' => sub { return $t->get('/websocket') },
        'nobody asked, with a body' => sub {
            return $t->request('POST', '/websocket', { body => 'x' });
        },
        'another protocol' => sub { return RProxy::Tunnel->ask($t, '/other')->response },
        'h2c' => sub { return RProxy::Tunnel->ask($t, '/h2c')->response },
        'no protocol' => sub { return RProxy::Tunnel->ask($t, '/none')->response },
    );
    for my $case (sort keys %ask) {
        my $response = $ask{$case}->();
        is($response->status, 502, $case);
        unlike($response->body, qr/another protocol/, 'no byte of it gets through');
        like($response->header('Proxy-Status'), qr/error=/, 'the proxy says what it was');
        $up->wait_event('closed');
    }
    wait_until('five lines in the log that say why', undef, sub {
        return grep({ /^502 . bad-upgrade/ } $t->access_log) == 5;
    });
};

behaviour 'RProxyUpgrade decides which upgrades are sent on', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, [
            '<Location /off>', 'RProxyUpgrade off', '</Location>',
            '<Location /any>', 'RProxyUpgrade any', '</Location>',
        ], sub {
            my ($conn) = @_;
            my $request = $conn->read_request // return;
            my $protocol = $request->header('Upgrade');
            if (!defined $protocol) {
                $conn->respond(200, [Connection => 'close'], 'no upgrade');
                return;
            }
            $conn->respond(101, [Upgrade => $protocol, Connection => 'Upgrade']);
            $conn->write($conn->read_until(qr/\n/));
            $conn->wait_closed;
        });
    # location, protocol as asked, method, whether it becomes a tunnel
    my @cases = (
        ['/default', 'websocket', 'GET', 1], ['/default', 'WebSocket', 'GET', 1],
        ['/default', 'my-protocol/1', 'GET', 0], ['/default', 'websocket', 'POST', 0],
        ['/default', 'h2c', 'GET', 0], ['/off', 'websocket', 'GET', 0],
        ['/off', 'my-protocol/1', 'GET', 0], ['/any', 'websocket', 'GET', 1],
        ['/any', 'my-protocol/1', 'GET', 1], ['/any', 'my-protocol/1', 'POST', 1],
        ['/any', 'h2c', 'GET', 0], ['/any', 'H2C', 'GET', 0], ['/any', 'h2c, websocket', 'GET', 0],
        ['/any', 'websocket, h2c', 'GET', 0], ['/any', 'a, b', 'GET', 0],
    );
    for my $case (@cases) {
        my ($path, $protocol, $method, $passes) = @$case;
        my $name = "$method $path: $protocol";
        my @settings = $protocol =~ /h2c/i ? ('HTTP2-Settings' => 'AAMAAABk') : ();
        my @length = $method eq 'POST' ? ('Content-Length' => 0) : ();
        my $tunnel = RProxy::Tunnel->ask($t, $path, protocol => $protocol, method => $method,
            headers => [@settings, @length, @settings ? (Connection => 'HTTP2-Settings') : ()]);
        my $head = $tunnel->head;
        is($head->status, $passes ? 101 : 200, $name);
        my $request = $up->request;
        is($request->header('Upgrade'), $passes ? $protocol : undef, 'Upgrade to the upstream');
        is($request->header('HTTP2-Settings'), undef, 'no HTTP2-Settings') if @settings;
        unlike($request->header('Connection') // '', qr/upgrade|settings/i, 'nor Connection')
            if !$passes;
        next unless $passes;
        $tunnel->write("$name\n");
        is($tunnel->read_until(qr/\n/), "$name\n", 'a tunnel');
        $tunnel->close;
    }
};

behaviour 'an upgrade needs HTTP/1.1, Connection: Upgrade and no body',
    except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, ['RProxyUpgrade any']);
    my $rest = 'Host: ' . $t->host . "\r\nUpgrade: my-protocol\r\n";
    my %case = (
        'without Connection' => "GET / HTTP/1.1\r\n$rest\r\n",
        'HTTP/1.0'           => "GET / HTTP/1.0\r\n${rest}Connection: Upgrade\r\n\r\n",
        'with a body'        => "POST / HTTP/1.1\r\n${rest}Connection: Upgrade\r\n"
            . "Content-Length: 4\r\n\r\nbody",
    );
    for my $name (sort keys %case) {
        my $client = $t->raw_client;
        $client->write($case{$name});
        is($client->read_response->status, 200, $name);
        is($up->request->header('Upgrade'), undef, 'is sent as an ordinary request');
    }
};

behaviour 'a tunnel goes by filters and time limits of requests',
    lanes => ['event', 'tls', 'prefork', 'engine', 'engine-tls'], sub {
        my ($t) = @_;
        $t->extra_modules(qw(deflate filter reqtimeout));
        my $up = proxied($t, ['SetOutputFilter DEFLATE', 'RequestReadTimeout header=1 body=1',
                'RProxyTimeout first-byte=1s idle=1s total=1s'], sub {
            my ($conn) = @_;
            RProxy::WebSocket->server($conn)->echo;
        });
        my $tunnel = RProxy::Tunnel->open($t, '/', headers => ['Accept-Encoding' => 'gzip']);
        my $socket = RProxy::WebSocket->over($tunnel);
        ok($tunnel->quiet_for(1.5), 'nothing ends it');
        $socket->send_text('x' x 1_000);
        is($socket->read_text, 'x' x 1_000, 'bytes arrive as they are');
        $socket->send_close;
        is(($socket->read_frame)[0], RProxy::WebSocket::CLOSE, 'close');
    };

behaviour 'extended CONNECT is refused where it is off or malformed',
    lanes => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t);
    my $client = $t->h2_client;
    my $setting = RProxy::H2::SETTING_ENABLE_CONNECT_PROTOCOL();
    is($client->wait_settings->{$setting}, 1, 'it is offered');
    my @authority = [':authority', $t->host];
    my %odd = (
        'without :path' => [[':method', 'CONNECT'], [':protocol', 'websocket'],
            [':scheme', 'https'], @authority],
        'without :scheme' => [[':method', 'CONNECT'], [':protocol', 'websocket'], [':path', '/'],
            @authority],
        'another protocol' => [[':method', 'CONNECT'], [':protocol', 'other'],
            [':scheme', 'https'], [':path', '/'], @authority],
        'GET' => [[':method', 'GET'], [':protocol', 'websocket'], [':scheme', 'https'],
            [':path', '/'], @authority],
        'plain CONNECT' => [[':method', 'CONNECT'], @authority],
    );
    for my $name (sort keys %odd) {
        my $odd = $t->h2_client;
        my $exchange = RProxy::H2::Exchange->new($odd, 'CONNECT');
        $odd->send_headers($exchange->id, $odd{$name}, 0);
        my $status = $exchange->response->status;
        ok(!defined $status || $status >= 400, "$name: refused")
            or diag("status $status");
    }
    is_deeply([map { $_->method } $up->requests], [], 'nothing reaches the upstream');
    is($client->get('/')->status, 200, 'others are served');
};

behaviour 'several WebSockets and requests share an HTTP/2 connection',
    lanes => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        my $request = $conn->read_head // return;
        if ($request->target eq '/plain') {
            $conn->respond(200, [Connection => 'close'], 'plain');
            return;
        }
        my $key = $request->header('Sec-WebSocket-Key');
        $conn->respond(101, [%TO_WEBSOCKET,
            'Sec-WebSocket-Accept' => RProxy::WebSocket::accept_value($key)]);
        RProxy::WebSocket->over($conn, mask => 0)->echo;
    });
    my $client = $t->h2_client;
    my @tunnels = map { RProxy::Tunnel->over($client, "/$_") } 1 .. 4;
    my @sockets = map { RProxy::WebSocket->over($_) } @tunnels;
    for my $round (1 .. 3) {
        $sockets[$_]->send_text("round $round of $_") for 0 .. 3;
        is($client->get('/plain')->body, 'plain', 'a request meanwhile');
        is($sockets[$_]->read_text, "round $round of $_", "echo to $_") for reverse 0 .. 3;
    }
    $tunnels[0]->abort;
    $sockets[1]->send_close;
    is(($sockets[1]->read_frame)[0], RProxy::WebSocket::CLOSE, 'one ends, one is left');
    $sockets[$_]->send_text('last') for 2, 3;
    is($sockets[$_]->read_text, 'last', 'the others go on') for 2, 3;
};

done_testing;
