#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/2 connections of the engine, frame by frame: streams beside each other, flow control,
# priorities, how streams and connections end, tunnels, and the clients that people use. What is the
# same in every protocol is tested in the lane engine-h2 of other files.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::H2;
use RProxy::Tunnel;
use RProxy::WebSocket;
use Time::HiRes ();

use constant { MIB => 1_048_576, WINDOW => 65_535, MANY => 40 };
# A sanitizer keeps what was freed.
use constant ROOM => MIB * ($ENV{RPROXY_PRELOAD} || $ENV{RPROXY_VALGRIND} ? 16 : 1);

my @engine = (lanes => ['engine']);
my @tls = (lanes => ['engine-h2']);
my $authority = 'www.example.test';
my @GET = ([':method', 'GET'], [':scheme', 'http'], [':path', '/x'], [':authority', $authority]);

sub proxied {
    my ($t, $lines, @upstream) = @_;
    my $up = $t->upstream(@upstream);
    $t->config($t->is_tls ? () : 'Protocols h2c http/1.1', @{ $lines // [] },
        'RProxyPass / ' . $up->url . '/');
    return $up;
}

sub connect_h2 {
    my ($t, %options) = @_;
    return $t->h2_client(%options) if $t->is_tls;
    return RProxy::H2->connect(port => $t->port, host_header => $t->host, %options);
}

# An upstream's handler: what begins with /held is answered when the test says go.
sub held {
    my ($conn) = @_;
    while (my $request = $conn->read_request) {
        my $target = $request->target;
        if ($target =~ m{^/held}) {
            $conn->notify("arrived $target");
            $conn->wait_for('go', 30);
        }
        $conn->respond(200, [], "answer to $target") or last;
    }
    return;
}

sub window_update {
    my ($h2, $id, $size) = @_;
    return $h2->send_frame(RProxy::H2::WINDOW_UPDATE, 0, $id, pack 'N', $size);
}

sub get_with {
    my ($h2, $path, @fields) = @_;
    return $h2->begin_fields([@GET[0, 1, 3], [':path', $path], @fields], 1);
}

# ---- connections -----------------------------------------------------------------------------

behaviour 'settings are exchanged', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    my $h2 = connect_h2($t);
    my $settings = $h2->wait_settings;
    is($settings->{3}, 100, 'MAX_CONCURRENT_STREAMS');
    is($settings->{4}, WINDOW, 'INITIAL_WINDOW_SIZE');
    cmp_ok($settings->{6}, '>=', 16_384, 'MAX_HEADER_LIST_SIZE');
    is($settings->{8}, 1, 'ENABLE_CONNECT_PROTOCOL');
    is($settings->{9}, 1, 'NO_RFC7540_PRIORITIES');
    ok($h2->ping, 'PING is answered');
    is($h2->{acknowledged}, 1, 'ours are acknowledged');
    is($h2->get('/')->body, "upstream\n", 'a request is served');
    is($h2->get('/')->body, "upstream\n", 'and another one on the same connection');
};

behaviour 'HTTP/1.1 on the same port', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    proxied($t);
    $t->start;
    is($t->raw_client->get('/')->body, "upstream\n", 'is served');
    my $client = $t->raw_client;
    $client->write("PUT / HTTP/1.1\r\nHost: $authority\r\nContent-Length: 0\r\n\r\n");
    is($client->read_response->body, "upstream\n", 'also if it begins as the preface does');
};

behaviour 'an idle connection ends after KeepAliveTimeout', @engine, sub {
    my ($t) = @_;
    proxied($t, ['KeepAliveTimeout 1']);
    $t->start;
    my $h2 = connect_h2($t);
    $h2->get('/');
    my $began = Time::HiRes::time();
    is($h2->end, 'NO_ERROR', 'with a GOAWAY');
    cmp_ok(Time::HiRes::time() - $began, '>', 0.7, 'not before');
};

behaviour 'a busy connection does not end after KeepAliveTimeout', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, ['KeepAliveTimeout 1', 'Timeout 1', 'RProxyTimeout first-byte=30']);
    $up->on_connection(\&held);
    $t->start;
    my $h2 = connect_h2($t);
    my $exchange = get_with($h2, '/held');
    $up->wait_event('arrived /held');
    ok($h2->stream->quiet_for(0) || $h2->ping, 'it is open');
    Time::HiRes::sleep(1.6);
    $up->signal('go');
    is($exchange->response->body, 'answer to /held', 'the request is answered');
};

# ---- streams beside each other ---------------------------------------------------------------

behaviour 'streams are answered as their upstreams answer', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(\&held);
    $t->start;
    my $h2 = connect_h2($t);
    my @held = map { get_with($h2, "/held$_") } 1 .. 3;
    $up->wait_event("arrived /held$_") for 1 .. 3;
    is($h2->get("/quick$_")->body, "answer to /quick$_", 'one after them is answered') for 1 .. 3;
    $up->signal('go');
    is($held[$_ - 1]->response->body, "answer to /held$_", "held $_ is answered") for 3, 1, 2;
};

behaviour 'many streams on one connection', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    my $up = proxied($t, [], record => 0);
    $up->crowd(reply => "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" . 'x' x 20_000);
    $t->start;
    my $h2 = connect_h2($t);
    for my $round (1 .. 5) {
        my @streams = map { get_with($h2, "/$_") } 1 .. 100;
        my @wrong = grep { !$_->complete || $_->body ne 'x' x 20_000 } map { $_->response }
            @streams;
        is_deeply([map { $_->error } @wrong], [], "100 at once, round $round");
    }
};

behaviour 'a stream whose window is shut does not stall the others', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, [], record => 0);
    $up->on_request(sub { return [200, [], 'x' x ($_[0]->target eq '/large' ? MIB : 1000)] });
    $t->start;
    my $h2 = connect_h2($t, auto_window => 0);
    my $before = $t->memory->{rss};
    window_update($h2, 0, 10 * MIB);
    my @stalled = map { get_with($h2, '/large') } 1 .. 20;
    is($_->head->status, '200', 'a head comes') for @stalled;
    ok($h2->ping, 'and what the window allows');
    is($h2->get('/small')->body, 'x' x 1000, 'another stream is served');
    ok($h2->ping, 'PING is answered');
    is_deeply([grep { length $_->{arrived} != WINDOW } @stalled], [], 'the windows are used up');
    cmp_ok($t->memory->{rss} - $before, '<', 16 * ROOM, 'what waits is bounded');
    window_update($h2, $_->id, MIB) for @stalled;
    window_update($h2, 0, 20 * MIB);
    is_deeply([grep { length $_->response->body != MIB } @stalled], [], 'and then all of it comes');
};

behaviour 'the window of the client is kept to', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->reply_with(200, [], join '', map { sprintf "%07d\n", $_ } 1 .. 20_000);
    $t->start;
    my $h2 = connect_h2($t, auto_window => 0,
        settings => { RProxy::H2::SETTING_INITIAL_WINDOW, 0 });
    my $exchange = $h2->begin_fields(\@GET, 1);
    is($exchange->head->status, '200', 'the head needs no window');
    ok($h2->ping && $h2->ping, 'the connection is alive');
    is($exchange->{arrived}, '', 'no DATA without a window');
    window_update($h2, $exchange->id, 10);
    is($exchange->read_exact(10), "0000001\n00", 'as much as it was opened');
    ok($h2->ping, 'the connection is alive');
    is($exchange->{arrived}, '', 'and no more');
    $h2->send_frame(RProxy::H2::SETTINGS, 0, 0, pack 'nN', 4, 100);
    is(length $exchange->read_exact(100), 100, 'SETTINGS open it, too');
    window_update($h2, $exchange->id, MIB);
    $exchange->read_exact(WINDOW - 110);
    ok($h2->ping, 'the connection is alive');
    is($exchange->{arrived}, '', 'its window is kept to');
    window_update($h2, 0, MIB);
    my $response = $exchange->response;
    ok($response->complete, 'the rest comes');
    is(length $response->body, 160_000, 'all of it');
};

behaviour 'an upload stops when the upstream reads nothing', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, [], record => 0);
    $up->on_connection(sub {
        my ($conn) = @_;
        $conn->read_head;
        $conn->notify('arrived');
        $conn->wait_for('go', 30);
        my $length = 0;
        while ((my $piece = $conn->read_body_piece) ne '') {
            $length += length $piece;
        }
        $conn->respond(200, [], "$length bytes");
    });
    $t->start;
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my $before = $t->memory->{rss};
    my $upload = $h2->begin('POST', '/', { stream => 1 });
    my ($sent, $still) = (0, 0);
    # What the sockets between hold is the kernel's.
    while ($sent < 64 * MIB && $still < 5) {
        my $room = $upload->{window} < $h2->{window} ? $upload->{window} : $h2->{window};
        $room = 16_384 if $room > 16_384;
        $upload->write('x' x $room) if $room > 0;
        $sent += $room;
        $still = $room > 0 ? 0 : $still + 1;
        Time::HiRes::sleep(0.1) if $room <= 0;
        $h2->ping if $room <= 0;
    }
    is($still, 5, 'the window stays shut');
    cmp_ok($t->memory->{rss} - $before, '<', 4 * ROOM, 'and httpd keeps little');
    $up->signal('go');
    $upload->write('x' x (2 * MIB));
    $upload->finish;
    is($upload->response->body, $sent + 2 * MIB . ' bytes', 'then all of it arrives');
};

behaviour 'many uploads at once', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    my $up = proxied($t, [], record => 0);
    $up->echo;
    $t->start;
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my @uploads = map { $h2->begin('POST', "/$_", { stream => 1 }) } 1 .. 20;
    for my $piece (1 .. 10) {
        $_->write("$piece " x 3000) for @uploads;
    }
    $_->finish for @uploads;
    my $body = join '', map { "$_ " x 3000 } 1 .. 10;
    is_deeply([grep { $_->response->body ne $body } @uploads], [], 'each is echoed');
};

# ---- priorities ------------------------------------------------------------------------------

# Both answers are there before the windows are opened for both at once.
sub order_of {
    my ($t, @priorities) = @_;
    my $trace = [];
    my $h2 = connect_h2($t, auto_window => 0, trace => $trace,
        settings => { RProxy::H2::SETTING_INITIAL_WINDOW, 0 });
    window_update($h2, 0, MIB);
    my @streams = map { get_with($h2, '/', ref $_ ? () : ['priority', $_]) } @priorities;
    $_->head for @streams;
    for my $index (grep { ref $priorities[$_] } 0 .. $#priorities) {
        $h2->send_frame(0x10, 0, 0, pack('N', $streams[$index]->id) . $priorities[$index][0]);
    }
    $h2->ping;
    @$trace = ();
    $h2->together(sub { window_update($h2, $_->id, MIB) for @streams });
    $_->response for @streams;
    return join '', map { ($_->[2] - $streams[0]->id) / 2 }
        grep { $_->[0] == RProxy::H2::DATA && $_->[3] } @$trace;
}

behaviour 'the urgent answer comes first', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->reply_with(200, [], 'x' x 25_000);
    $t->start;
    like(order_of($t, 'u=7', 'u=0'), qr/^1+0+$/, 'u=0 before u=7');
    like(order_of($t, 'u=4', 'u=5'), qr/^0+1+$/, 'u=4 before u=5');
    like(order_of($t, 'u=4', 'u=3', 'u=5') , qr/^1+0+2+$/, 'u=3 before u=4 before u=5');
    like(order_of($t, 'u=3', 'u=3'), qr/^0+1+$/, 'the first one first where both are as urgent');
    like(order_of($t, 'u=3, i', 'u=3, i'), qr/^0+1+0+1+/, 'in turn where both are incremental');
    like(order_of($t, ['u=6'], ['u=1']), qr/^1+0+$/, 'as PRIORITY_UPDATE says');
    like(order_of($t, 'garbage', 'u=2'), qr/^1+0+$/, 'what cannot be read is the default');
};

# ---- heads -----------------------------------------------------------------------------------

behaviour 'fields of requests', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $h2 = connect_h2($t);
    get_with($h2, '/a%20b?c=d&e', ['cookie', 'a=1'], ['x-a', 'b'], ['cookie', 'b=2'], ['x-a', 'c'],
        ['cookie', 'c=3'], ['te', 'trailers'], ['x-empty', ''])->response;
    my $request = $up->request;
    is($request->target, '/a%20b?c=d&e', 'path and query');
    is($request->version, '1.1', 'in HTTP/1.1');
    is_deeply([$request->headers_all('Cookie')], ['a=1; b=2; c=3'], 'cookies are one field');
    is_deeply([$request->headers_all('X-A')], ['b', 'c'], 'others stay apart');
    is_deeply([$request->headers_all('X-Empty')], [''], 'also an empty one');
    is($request->header('X-Forwarded-Host'), $authority, 'the authority');
    get_with($h2, '/', ['x-long', 'y' x 7000])->response;
    is($up->request->header('X-Long'), 'y' x 7000, 'a long one');
    $h2->begin_fields([@GET[0 .. 2], ['host', $authority]], 1)->response;
    is($up->request->header('X-Forwarded-Host'), $authority, 'Host alone will do');
    $h2->begin_fields([@GET, ['host', $authority]], 1)->response;
    is($up->request->header('X-Forwarded-Host'), $authority, 'and both, if they are the same');
    is(scalar(() = $up->request->headers_all('Host')), 1, 'the upstream gets one');
    is(scalar(() = $up->requests), 4, 'four requests');
};

behaviour 'fields of responses that are not for HTTP/2', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->reply_with(200, ['Connection' => 'X-Hop, keep-alive', 'X-Hop' => 'a',
        'Keep-Alive' => 'timeout=5', 'Proxy-Connection' => 'keep-alive', 'Upgrade' => 'h2c',
        'X-Capitals' => 'Stay Here', 'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2'], 'body');
    $t->start;
    my $response = connect_h2($t)->get('/');
    is($response->body, 'body', 'the body comes');
    my @names = map { $_->[0] } RProxy::Message::pairs($response->headers);
    is_deeply([grep { /[A-Z]/ } @names], [], 'no name has capitals');
    my $hop = qr/^(?:connection|x-hop|keep-alive|proxy-connection|upgrade|transfer-encoding)$/;
    is_deeply([grep { $_ =~ $hop } @names], [], 'none is of the connection');
    is($response->header('X-Capitals'), 'Stay Here', 'values stay');
    is_deeply([$response->headers_all('Set-Cookie')], ['a=1', 'b=2'], 'fields stay apart');
    ok($response->header('Date'), 'there is a Date');
};

behaviour 'answers without a body end with their head', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_request(sub {
        my ($request) = @_;
        return [204, []] if $request->target eq '/204';
        return [304, ['ETag' => '"x"']] if $request->target eq '/304';
        return [200, ['Content-Length' => 0], ''] if $request->target eq '/0';
        return [200, ['Content-Length' => 1000], undef, 1] if $request->method eq 'HEAD';
        return [200, [], 'body'];
    });
    $t->start;
    my $trace = [];
    my $h2 = connect_h2($t, trace => $trace);
    for my $case (['GET', '/204', '204'], ['GET', '/304', '304'], ['GET', '/0', '200'],
        ['HEAD', '/', '200']) {
        @$trace = ();
        my $response = $h2->request($case->[0], $case->[1]);
        is($response->status, $case->[2], "$case->[0] $case->[1]");
        is($response->body, '', 'no body');
        my @frames = grep { $_->[2] } @$trace;
        is_deeply([map { $_->[0] } @frames], [RProxy::H2::HEADERS], 'nothing but a head');
        ok($frames[0][1] & RProxy::H2::END_STREAM, 'which ends the stream');
    }
    is($h2->request('HEAD', '/')->header('Content-Length'), '1000', 'HEAD says how long it is');
};

behaviour 'trailers both ways', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        while ($conn->read_request) {
            $conn->respond(200, ['Transfer-Encoding' => 'chunked', 'Trailer' => 'X-Sum']);
            $conn->write_chunk('body');
            $conn->write_last_chunk('X-Sum' => 'six', 'X-Two' => 'b');
        }
    });
    $t->start;
    my $h2 = connect_h2($t);
    for my $body ('hello', '') {
        my $response = $h2->request('POST', '/', { body => $body, headers => [te => 'trailers'],
            trailers => ['X-Check' => 'five'], chunked => 1 });
        ok($response->complete, 'complete');
        is($response->body, 'body', 'the body');
        is($response->trailer('X-Sum'), 'six', 'trailers of the response');
        is($response->trailer('X-Two'), 'b', 'all of them');
        my $request = $up->request;
        is($request->body, $body, 'the body of the request');
        is($request->trailer('X-Check'), 'five', 'its trailers');
    }
    my $plain = $h2->request('GET', '/');
    ok($plain->complete, 'without TE: trailers it is complete, too');
};

behaviour 'interim responses', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        $conn->wait_for('go');
        $conn->write("HTTP/1.1 103 Early Hints\r\nLink: </b>\r\nConnection: close\r\n\r\n");
        $conn->respond(200, [], 'body');
    });
    $t->start;
    my $exchange = get_with(connect_h2($t), '/');
    my $hints = $exchange->next_head;
    is($hints->status, '103', '103 comes at once');
    is($hints->header('Link'), '</a>', 'with its fields');
    $up->signal('go');
    my $response = $exchange->response;
    is_deeply([map { $_->header('Link') } @{ $response->interim }], ['</a>', '</b>'],
        'each of them');
    is($response->interim->[1]->header('Connection'), undef, 'without those of the connection');
    is($response->body, 'body', 'and the answer');
};

behaviour 'Expect: 100-continue', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            if ($head->target eq '/refused') {
                $conn->respond(417, ['Connection' => 'close'], 'no');
                last;
            }
            $conn->write("HTTP/1.1 100 Continue\r\n\r\n");
            my $request = $conn->read_body;
            $conn->respond(200, [], $request->body);
        }
    });
    $t->start;
    my $h2 = connect_h2($t);
    my $response = $h2->request('POST', '/', { body => 'hello', expect => 1 });
    is_deeply([map { $_->status } @{ $response->interim }], ['100'], 'the client is asked for it');
    is($response->body, 'hello', 'the body is sent');
    $response = $h2->request('POST', '/refused', { body => 'hello', expect => 1 });
    is($response->status, '417', 'a refusal without the body');
    is_deeply([map { $_->status } @{ $response->interim }], [], 'and without 100');
    is($h2->request('POST', '/', { body => 'x' })->body, 'x', 'the connection goes on');
};

# ---- the end of streams ----------------------------------------------------------------------

behaviour 'a client that cancels a stream cancels it at the upstream', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        if ($request->target eq '/body') {
            $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
            $conn->write_chunk('begin');
        }
        $conn->notify('arrived');
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->start;
    my $h2 = connect_h2($t);
    for my $path ('/head', '/body') {
        my $exchange = get_with($h2, $path);
        $up->wait_event('arrived');
        $exchange->read_exact(5) if $path eq '/body';
        $exchange->abort;
        ok($up->wait_event('closed'), "$path: the upstream's connection is closed");
    }
    my $upload = $h2->begin('POST', '/upload', { stream => 1 });
    $upload->write('x' x 1000);
    wait_until('the head at the upstream', undef, sub { scalar(() = $up->requests) == 3
        || $up->count('arrived') || $up->connections >= 3 });
    $upload->abort;
    $up->reply_with(200, [], 'good');
    is($h2->get('/')->body, 'good', 'the connection goes on');
    ok($t->wait_access_log(qr{"GET /body HTTP/2\.0"}), 'what was begun is logged');
};

# More than a round of the loop steps: the ends, and the requests behind them, take several.
behaviour 'a client that cancels many streams and asks again', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        return $conn->respond(200, [], 'good') if $request->target !~ m{^/held};
        $conn->notify('arrived');
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->start;
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my @held;
    $h2->together(sub { @held = map { get_with($h2, '/held') } 1 .. MANY });
    wait_until('the requests at the upstream', undef, sub { $up->count('arrived') == MANY });
    my @again;
    $h2->together(sub {
        $h2->send_reset($_->id) for @held;
        @again = map { get_with($h2, '/again') } 1 .. MANY;
    });
    is(scalar(grep { $_->response->body eq 'good' } @again), MANY, 'it is answered');
    wait_until('the ends at the upstream', undef, sub { $up->count('closed') == MANY });
    is(scalar($up->connections), 2 * MANY, 'no cancelled one was sent twice');
};

behaviour 'an answer that breaks off', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/length') {
                $conn->respond(200, ['Content-Length' => 100], undef, 1);
                $conn->write('x' x 50);
                return;
            }
            if ($request->target eq '/chunked') {
                $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
                $conn->write_chunk('x' x 50);
                return;
            }
            $conn->respond(200, [], 'good');
        }
    });
    $t->start;
    my $h2 = connect_h2($t);
    for my $path ('/length', '/chunked') {
        my $response = $h2->get($path);
        like($response->error, qr/^RST_STREAM (?!NO_ERROR|CANCEL)/, "$path ends with an error");
        is(length $response->body, 50, 'behind what there was');
    }
    is($h2->get('/')->body, 'good', 'the connection goes on');
};

behaviour 'an answer before the end of the request', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->expect_errors;
    $up->on_connection(sub {
        my ($conn) = @_;
        $conn->read_head or return;
        $conn->respond(413, ['Connection' => 'close'], 'too large');
    });
    $t->start;
    my $h2 = connect_h2($t);
    my $upload = $h2->begin('POST', '/', { stream => 1 });
    $upload->write('x' x 10_000);
    my $response = $upload->response;
    is($response->status, '413', 'the answer comes');
    is($response->body, 'too large', 'all of it');
    while (!defined $upload->{reset}) {
        $h2->step('RST_STREAM') or last;
    }
    is($upload->{reset}, RProxy::H2::NO_ERROR, 'then the client is told to stop');
    $up->reply_with(200, [], 'good');
    is($h2->get('/')->body, 'good', 'the connection goes on');
};

behaviour 'a graceful restart', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(\&held);
    $t->start;
    my ($child) = $t->children;
    my $h2 = connect_h2($t);
    my $idle = connect_h2($t);
    $idle->get('/');
    my $exchange = get_with($h2, '/held');
    $up->wait_event('arrived /held');
    $t->signal('USR1');
    $h2->step('GOAWAY') while !@{ $h2->{goaways} };
    is_deeply($h2->{goaways}, [0x7fffffff], 'is announced');
    is($h2->{goaway}, RProxy::H2::NO_ERROR, 'without an error');
    is(get_with($h2, '/new')->response->body, 'answer to /new', 'what is sent meanwhile is served');
    $h2->step('GOAWAY') while @{ $h2->{goaways} } < 2;
    is($h2->{goaways}[1], 3, 'then there is a last stream');
    $up->signal('go');
    is($exchange->response->body, 'answer to /held', 'what is under way ends well');
    ok($h2->end, 'then the connection ends');
    is($idle->end, 'NO_ERROR', 'an idle one, too');
    wait_until('the old child to end', undef, sub { !kill 0, $child });
    is(connect_h2($t)->get('/')->body, 'answer to /', 'the new child serves');
};

# ---- CONNECT ---------------------------------------------------------------------------------

sub echoing {
    my ($conn) = @_;
    my $ws = RProxy::WebSocket->server($conn) or return;
    $ws->echo;
    $conn->notify('ended');
    return;
}

behaviour 'a WebSocket', lanes => [qw(engine engine-h2)], sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_connection(\&echoing);
    $t->start;
    my $h2 = connect_h2($t);
    my $tunnel = RProxy::Tunnel->over($h2, '/ws?a=b');
    is($tunnel->head->header($_), undef, "no $_") for qw(Sec-WebSocket-Accept Connection Upgrade);
    my $request = $up->request;
    is($request->method, 'GET', 'the upstream gets a GET');
    is($request->target, '/ws?a=b', 'with its target');
    is($request->header('Upgrade'), 'websocket', 'Upgrade');
    is($request->header('Connection'), 'Upgrade', 'Connection');
    like($request->header('Sec-WebSocket-Key'), qr{^[\w+/]{22}==$}, 'a key');
    is($request->header('Sec-WebSocket-Version'), '13', 'the version');
    my $ws = RProxy::WebSocket->over($tunnel);
    $ws->send_text("message $_") for 1 .. 3;
    is($ws->read_text, "message $_", "message $_ comes back") for 1 .. 3;
    $ws->send_text('x' x 200_000);
    is($ws->read_text, 'x' x 200_000, 'a large one, too');
    my $other = RProxy::WebSocket->over(RProxy::Tunnel->over($h2, '/other'));
    $other->send_text('other');
    is($other->read_text, 'other', 'another one beside it');
    $ws->send_close;
    is(($ws->read_frame)[0], RProxy::WebSocket::CLOSE, 'it is closed');
    is($tunnel->read_rest, '', 'and ends');
    is($tunnel->ended, 'eof', 'in good order');
    $other->send_text('still');
    is($other->read_text, 'still', 'the other one goes on');
};

behaviour 'the end of a tunnel', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->expect_errors;
    $up->on_connection(sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn) or return;
        $conn->notify('open');
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->start;
    my $h2 = connect_h2($t);
    my $aborted = RProxy::Tunnel->over($h2, '/a');
    $up->wait_event('open');
    $aborted->abort;
    ok($up->wait_event('closed'), 'RST_STREAM closes it at the upstream');
    my $half = RProxy::Tunnel->over($h2, '/b');
    $up->wait_event('open');
    $half->write('abc');
    $half->half_close;
    ok($up->wait_event('closed'), 'END_STREAM arrives there, too');
    is($half->read_rest, '', 'its own end comes back');
    ok($h2->ping, 'the connection goes on');
};

behaviour 'CONNECT that is not for a WebSocket', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $t->start;
    my $h2 = connect_h2($t);
    my $plain = $h2->begin_fields([[':method', 'CONNECT'], [':authority', "$authority:443"]], 0);
    is($plain->response->status, '405', 'plain CONNECT');
    is($h2->begin_fields([[':method', 'CONNECT'], [':authority', '127.0.0.1:' . $up->port]], 0)
        ->response->status, '405', 'also to the upstream');
    my @extended = ([':method', 'CONNECT'], @GET[1 .. 3]);
    for my $protocol ('h2c', 'connect-udp', 'websocket, h2c', '') {
        my $response = $h2->begin_fields([@extended, [':protocol', $protocol]], 0)->response;
        unlike($response->status // 'none', qr/^2/, "protocol '$protocol' is not granted");
    }
    is_deeply([grep { defined $_->header('Upgrade') } $up->requests], [],
        'no upstream was asked for one');
    is($h2->get('/')->body, "upstream\n", 'the connection goes on');
};

behaviour 'a WebSocket that the upstream does not grant', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->on_request(sub {
        my ($request) = @_;
        return [403, [], 'no'] if $request->target eq '/403';
        return [200, ['Content-Length' => 4], 'page'];
    });
    $t->start;
    my $h2 = connect_h2($t);
    $h2->wait_settings;
    my @extended = ([':method', 'CONNECT'], @GET[1, 3], [':protocol', 'websocket']);
    my @version = ['sec-websocket-version', '13'];
    my $refused = $h2->begin_fields([@extended, [':path', '/403'], @version], 0)->response;
    is($refused->status, '403', 'its refusal is relayed');
    is($refused->body, 'no', 'with its page');
    # To the client any 2xx is a tunnel (RFC 8441 section 5).
    my $page = $h2->begin_fields([@extended, [':path', '/200'], @version], 0)->response;
    unlike($page->status, qr/^2/, 'a 200 in HTTP/1.1 is no tunnel');
    my $length = $h2->begin_fields([@extended, [':path', '/200'], ['content-length', '5']], 0);
    $length->write('hello');
    unlike($length->response->status // 'none', qr/^2/, 'one with Content-Length is no tunnel');
    is_deeply([grep { defined $_->header('Content-Length') } $up->requests], [],
        'and the upstream is told of none');
};

# ---- virtual hosts, logs, errors -------------------------------------------------------------

behaviour 'virtual hosts of one address', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    my $other = $t->upstream->reply_with(200, [], 'other');
    $t->vhost('other.example.test',
        ['Protocols h2c http/1.1', 'RProxyPass / ' . $other->url . '/']);
    $t->access_format('%V %v "%r" %>s');
    $t->start;
    my $h2 = connect_h2($t);
    my @to = map { my $name = $_; sub { [@GET[0 .. 2], [':authority', $name]] } }
        $authority, 'other.example.test', $authority;
    is_deeply([map { $h2->begin_fields($_->(), 1)->response->body } @to],
        ["upstream\n", 'other', "upstream\n"], 'one connection asks for both');
    wait_until('three lines in the log', undef, sub { return $t->access_log >= 3 });
    my @logged = sort map { /^(\S+ \S+)/ ? $1 : () } $t->access_log;
    is_deeply(\@logged, [map { "$_ $_" } 'other.example.test', $authority, $authority],
        'the log names them');
};

behaviour 'a virtual host that the handshake was not for', @tls, sub {
    my ($t) = @_;
    my $up = proxied($t);
    my $other = $t->upstream->reply_with(200, [], 'other');
    $t->vhost('other.example.test', ['RProxyPass / ' . $other->url . '/']);
    $t->access_format('%V "%r" %>s');
    $t->start;
    my $h2 = connect_h2($t);
    # Side by side, so that each is logged after the next one was looked at.
    my @streams = $h2->together(sub {
        return map {
            $h2->begin_fields([@GET[0 .. 2], [':authority', $_]], 1)
        } map { ("$_.example.test", $authority) } qw(other some-other another-one-with-a-long-name);
    });
    is_deeply([map { $_->response->status } @streams], [('421', '200') x 3],
        'is refused with 421');
    is(scalar(() = $other->requests), 0, 'its upstream gets nothing');
    wait_until('six lines in the log', undef, sub { $t->access_log >= 6 });
    is(scalar(grep { / 421$/ } $t->access_log), 3, 'they are logged');
};

behaviour 'the access log', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, ['LimitRequestFieldSize 500']);
    $t->access_format('%H %m %U%q "%r" %>s %B %{HTTP2}e %{X-A}i %{X-B}o');
    $up->reply_with(201, ['X-B' => 'out'], 'body');
    $t->start;
    my $h2 = connect_h2($t);
    get_with($h2, '/path?query', ['x-a', 'in'])->response;
    is($t->wait_access_log(qr/ 201 /),
        "HTTP/2.0 GET /path?query \"GET /path?query HTTP/2.0\" 201 4 on in out", 'a request');
    $h2->begin_fields([@GET, ['x-a', 'y' x 1000]], 1)->response;
    like($t->wait_access_log(qr/ 4\d\d /), qr{"GET /x HTTP/2\.0" 4(?:00|31) }, 'a refused one');
};

behaviour 'errors of the proxy', @engine, sub {
    my ($t) = @_;
    my $port = $t->refused_port;
    my $up = proxied($t, ["RProxyPass /refused http://127.0.0.1:$port/",
        'RProxyTimeout first-byte=1', 'RProxyErrorOverride on']);
    $up->on_connection(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/late') {
                $conn->wait_closed;
                return;
            }
            if ($request->target eq '/garbage') {
                $conn->write("garbage\r\n\r\n");
                return;
            }
            $conn->respond($request->target eq '/500' ? 500 : 200, [], 'of the upstream') or last;
        }
    });
    $t->start;
    my $h2 = connect_h2($t);
    my $response = $h2->get('/refused');
    is($response->status, '502', 'an upstream that refuses');
    like($response->header('Proxy-Status'), qr/error=connection_refused/, 'Proxy-Status says why');
    like($response->body, qr/502 Bad Gateway/, 'a page says so');
    is($h2->get('/late')->status, '504', 'an answer that does not come in time');
    is($h2->get('/garbage')->status, '502', 'an answer that is none');
    $response = $h2->get('/500');
    is($response->status, '500', 'an error of the upstream');
    unlike($response->body, qr/of the upstream/, 'with RProxyErrorOverride the page is ours');
    is($h2->request('HEAD', '/refused')->body, '', 'HEAD gets no page');
    is($h2->get('/')->body, 'of the upstream', 'the connection goes on');
};

behaviour 'LimitRequestBody', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t, ['LimitRequestBody 1000']);
    $up->expect_errors;
    $up->echo;
    $t->start;
    my $h2 = connect_h2($t);
    is($h2->request('POST', '/', { body => 'x' x 1000 })->status, '200', 'up to it');
    is($h2->request('POST', '/', { body => 'x' x 1001 })->status, '413', 'over it, as announced');
    is($h2->request('POST', '/', { body => 'x' x 1001, chunked => 1 })->status, '413',
        'as it comes');
    is($h2->request('POST', '/', { body => 'x' })->status, '200', 'the connection goes on');
};

# ---- clients that people use -----------------------------------------------------------------

sub tool {
    my (@command) = @_;
    my $quoted = join ' ', map { "'" . s/'/'\\''/gr . "'" } @command;
    return scalar qx($quoted 2>&1);
}

sub has { return grep { -x "$_/$_[0]" } split /:/, $ENV{PATH} }

my $NODE = <<'EOT';
const http2 = require('http2'), fs = require('fs');
const [port, ca] = process.argv.slice(1);
const session = http2.connect('https://localhost:' + port,
    { ca: fs.readFileSync(ca), servername: 'www.example.test' });
const get = (path, body) => new Promise((resolve, reject) => {
    const stream = session.request({ ':path': path, ':authority': 'www.example.test',
        ':method': body ? 'POST' : 'GET' });
    let text = '', status;
    stream.on('response', headers => { status = headers[':status']; });
    stream.on('data', piece => { text += piece; });
    stream.on('end', () => resolve(status + ' ' + text.length));
    stream.on('error', reject);
    stream.end(body);
});
Promise.all([get('/a'), get('/b', 'x'.repeat(300000)), get('/c', 'yz')]).then(results => {
    console.log(results.join(', '));
    session.close();
}, error => { console.log(String(error)); session.destroy(); });
EOT

behaviour 'curl, nghttp and Node.js', @tls, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->echo;
    $t->start;
    my ($port, $ca) = ($t->port, $t->certs->ca_file);
    my @to = ('--connect-to', "$authority:443:127.0.0.1:$port", '--cacert', $ca);
    ok(has('curl'), 'curl is there');
    is(tool('curl', '-sS', '--http2', @to, '-d', 'x' x 100_000, '-o', '/dev/null', '-w',
        '%{http_version} %{http_code} %{size_download}', "https://$authority/"),
        '2 200 100000', 'curl --http2');
    like(tool('nghttp', '-nv', '-m', '10', '-H', ":authority: $authority",
        "https://127.0.0.1:$port/"), qr/:status: 200/, 'nghttp') if has('nghttp');
    is(tool('node', '-e', $NODE, $port, $ca), "200 0, 200 300000, 200 2\n", 'Node.js')
        if has('node');
};

behaviour 'curl and nghttp with prior knowledge', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->echo;
    $t->start;
    my $url = "http://$authority/";
    my $port = $t->port;
    my @to = ('--connect-to', "$authority:80:127.0.0.1:$port", '-d', 'hello');
    is(tool('curl', '-sS', '--http2-prior-knowledge', @to, '-w', ' %{http_version}', $url),
        'hello 2', 'curl');
    is(tool('curl', '-sS', '--http2', @to, '-w', ' %{http_version}', $url), 'hello 1.1',
        'curl that asks for an upgrade to h2c');
    like(tool('nghttp', '-nv', '-H', ":authority: $authority", "http://127.0.0.1:$port/"),
        qr/:status: 200/, 'nghttp') if has('nghttp');
};

done_testing;
