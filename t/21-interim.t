#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Interim responses: 100 end to end and only where it was asked for, 103 and others relayed as they
# come, and a limit on how many there may be.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

use constant SILENCE => 0.3;    # seconds in which something must not happen

behaviour '100 comes when the upstream sends it, and the body after it', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            $conn->notify('head');
            $conn->wait_for($head->target);
            $conn->notify('early body') if $conn->buffer ne '';
            $conn->write("HTTP/1.1 100 Continue\r\n\r\n");
            my $request = $conn->read_body;
            $conn->respond(200, [], $request->body);
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $framing ('length', 'chunked') {
        my $exchange = $client->begin('PUT', "/$framing", {
            stream  => 1,
            headers => ['Expect' => '100-continue',
                $framing eq 'length' ? ('Content-Length' => 5) : ()],
        });
        $up->wait_event('head');
        ok($client->quiet_for(SILENCE), "$framing: silence before the upstream has decided")
            if !$t->is_h2;
        is_deeply($exchange->{interim}, [], 'no 100 of the proxy itself');
        $up->signal("/$framing");
        my $interim = $exchange->next_head;
        is($interim && $interim->status, 100, 'the 100 of the upstream arrives');
        $exchange->write('hello');
        $exchange->finish;
        my $response = $exchange->response;
        is($response->status, 200, 'the answer');
        is($response->body, 'hello', 'to the whole body');
        is(scalar @{ $response->interim }, 1, 'one 100 only');
        is(lc $up->request->header('Expect'), '100-continue', 'the upstream was asked');
    }
    is($up->count('early body'), 0, 'no byte of a body before 100');
    is(scalar $up->connections, 1, 'the upstream connection is kept');
};

behaviour 'a final answer in place of 100 saves sending the body', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $head = $conn->read_head or return;
        if ($head->method eq 'GET') {
            $conn->respond(200, [], 'next');
            return;
        }
        $conn->respond(401, ['WWW-Authenticate' => 'Basic realm="x"'], 'no');
        $conn->meta(left => $conn->wait_closed . ' ' . length $conn->buffer);
        $conn->notify('left');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my $response = $client->request('PUT', '/', { expect => 1, body => 'x' x 100_000 });
    is($response->status, 401, 'the answer of the upstream');
    is($response->body, 'no', 'whole');
    ok($response->complete, 'complete');
    is_deeply($response->interim, [], 'without 100');
    $up->wait_event('left');
    is(($up->connections)[0]{left}, 'eof 0', 'no body byte was sent, the connection is not reused');
    if ($t->is_h2) {
        is($client->get('/')->body, 'next', 'the client connection goes on');
    }
    else {
        is($response->header('Connection'), 'close', 'nobody waits for the body');
        is($client->wait_closed, 'eof', 'the client connection ends cleanly');
        is($t->get('/')->body, 'next', 'the next one is served');
    }
};

behaviour 'a client that does not wait for 100 is served', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            $conn->respond(200, [], $conn->read_body->body);
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $body ('hello', 'x' x 200_000) {
        my $response = $client->request('PUT', '/', {
            headers => ['Expect' => '100-continue'], body => $body, timeout => 20 });
        ok($response->body eq $body && $response->complete, length($body) . ' bytes');
    }
    is(scalar $up->connections, 1, 'both connections are kept');
};

behaviour '100 that a client did not ask for does not reach it', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Go on\r\nX-A: 1\r\n\r\n");
            $conn->respond(200, [], 'fine');
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $method ('GET', 'POST', 'PUT') {
        my $response = $client->request($method, '/', $method eq 'GET' ? {} : { body => 'hello' });
        is($response->body, 'fine', $method);
        is_deeply($response->interim, [], 'no interim response');
    }
    is(scalar $up->connections, 1, 'the upstream connection is kept');
};

behaviour 'an HTTP/1.0 client gets no interim response', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        $conn->respond(200, [], 'fine');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->raw_client;
    $client->write("PUT / HTTP/1.0\r\nHost: www.example.test\r\nContent-Length: 2\r\n"
            . "Expect: 100-continue\r\n\r\nab");
    my $response = $client->read_response;
    is($response->status, 200, 'the final answer');
    is($response->body, 'fine', 'whole');
    is_deeply($response->interim, [], 'nothing before it');
};

behaviour '103 and other interim responses are relayed at once', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"
                    . "Link: </b.js>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n");
            $conn->wait_for($request->target);
            $conn->write("HTTP/1.1 102 Processing\r\n\r\n"
                    . "HTTP/1.1 103 Early Hints\r\nLink: </c>\r\n\r\n");
            $conn->respond(200, ['X-Final' => 1], 'fine');
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->config('H2EarlyHints on') if $t->has_mod_http2;
    $t->start;
    my $client = $t->client;
    for my $target ('/1', '/2') {
        my $exchange = $client->begin('GET', $target, {});
        my $hint = $exchange->next_head;
        is($hint->status, 103, 'before the upstream has said more');
        is(join(', ', $hint->headers_all('Link')), '</a.css>; rel=preload, </b.js>; rel=preload',
            'with its fields');
        is($hint->header('X-Hop'), undef, 'but those for one hop');
        $up->signal($target);
        my $response = $exchange->response;
        is(join(' ', map { $_->status } @{ $response->interim }), '103 102 103', 'all in order');
        is($response->status, 200, 'final answer');
        is($response->header('X-Final'), 1, 'with its fields');
        is($response->header('Link'), undef, 'and not those of the hints');
        is($response->body, 'fine', 'and its body');
    }
    is(scalar $up->connections, 1, 'the upstream connection is kept');
};

behaviour 'too many interim responses are an error of the upstream', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $count = substr $request->target, 1;
            $conn->write("HTTP/1.1 102 Processing\r\n\r\n" x $count);
            $conn->respond(200, [], 'fine');
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my $response = $client->get('/20');
    is($response->status, 200, 'some are fine');
    is(scalar @{ $response->interim }, 20, 'all relayed');
    $response = $client->get('/1000');
    is($response->status, 502, 'too many are not');
    like($response->header('Proxy-Status'), qr/error=http_protocol_error/, 'Proxy-Status');
    cmp_ok(scalar @{ $response->interim }, '<', 1000, 'not all were relayed');
    is($client->get('/0')->body, 'fine', 'the client connection goes on');
    is(scalar $up->connections, 2, 'the upstream connection does not');
};

done_testing;
