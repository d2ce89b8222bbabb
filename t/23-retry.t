#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What is sent again, how often, and what never is. Counted at the upstream. However it ends, the
# client gets an answer.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

use constant KEPT => 65_536;    # request body bytes that are kept for another attempt

# The names of what arrived: method, target and length of the body, in order.
sub arrived {
    my ($up) = @_;
    return [map { $_->method . ' ' . $_->target . ' ' . length $_->body } $up->requests];
}

# Answers requests; for /dead... it drops the connection without an answer if it served one before.
sub forgetful_upstream {
    my ($t) = @_;
    return $t->upstream(sub {
        my ($conn) = @_;
        my $served = 0;
        while (my $request = $conn->read_request) {
            return if $request->target eq '/dead' && $served;
            return $conn->reset if $request->target eq '/reset' && $served;
            return if $request->target eq '/always';
            $conn->respond(200, [], $request->body);
            $served++;
        }
    });
}

sub is_bad_gateway {
    my ($response, $name) = @_;
    is($response->status, 502, "$name: 502");
    like($response->header('Proxy-Status'), qr/^"[^"]+"; *error=connection_terminated/,
        'says why');
    ok($response->complete, 'complete');
    return;
}

behaviour 'a dead reused connection is replaced once, where that is safe', sub {
    my ($t) = @_;
    my $up = forgetful_upstream($t);
    $t->access_format('%r %{rproxy-attempts}e %{rproxy-error}e');
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyRetry on=503');
    $t->start;
    my $client = $t->client;
    my $connections = 0;
    for my $case (['GET', '/dead'], ['HEAD', '/reset'], ['PUT', '/dead', 'x' x 1_000],
        ['PUT', '/reset', 'x' x KEPT], ['DELETE', '/dead'], ['OPTIONS', '/reset']) {
        my ($method, $target, $body) = @$case;
        is($client->get('/warm')->status, 200, 'a connection for reuse');
        my $response = $client->request($method, $target, { body => $body });
        is($response->status, 200, "$method $target");
        ok($response->body eq ($body // ''), 'answered, body included');
        is_deeply([@{ arrived($up) }[-2, -1]],
            [("$method $target " . length($body // '')) x 2], 'sent twice');
    }
    is($client->get('/always')->status, 502, 'not again and again');
    is(scalar(grep { /always/ } @{ arrived($up) }), 2, 'once only');
    $t->wait_access_log(qr{^GET /always HTTP/\S+ 2 closed-early$});
    ok(1, 'the log says so');
};

behaviour 'a POST on a dead reused connection is not sent again unless asked for', sub {
    my ($t) = @_;
    my $up = forgetful_upstream($t);
    $t->config('RProxyPass /all ' . $up->url, 'RProxyPass / ' . $up->url . '/',
        '<Location /all>', 'RProxyRetry methods=all', '</Location>');
    $t->start;
    my $client = $t->client;
    for my $target ('/dead', '/reset') {
        for my $method ('POST', 'PATCH') {
            is($client->get('/warm')->status, 200, 'a connection for reuse');
            my $response = $client->request($method, $target, { body => 'hello' });
            is_bad_gateway($response, "$method $target");
            is(scalar(grep { $_ eq "$method $target 5" } @{ arrived($up) }), 1, 'sent once');
        }
    }
    is($client->get('/warm')->status, 200, 'the client connection goes on');
    my $response = $client->request('POST', '/all/dead', { body => 'world' });
    is($response->status, 200, 'methods=all repeats it');
    is($response->body, 'world', 'with its body');
    is_deeply([@{ arrived($up) }[-2, -1]], [('POST /dead 5') x 2], 'sent twice');
};

behaviour 'a body longer than what is kept is not sent again', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $served = 0;
        while (my $request = $conn->read_request) {
            return if $request->target eq '/dead' && $served;
            $conn->respond(200, [], 'got ' . length $request->body);
            $served++;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $size (KEPT, KEPT + 1, 500_000) {
        for my $chunked (0, 1) {
            is($client->get('/warm')->status, 200, 'a connection for reuse');
            my $before = @{ arrived($up) };
            my $response = $client->request('PUT', '/dead',
                { body => 'x' x $size, chunked => $chunked });
            my $fits = $size <= KEPT;
            is($response->status, $fits ? 200 : 502, "$size bytes");
            is($response->body, "got $size", 'all of it') if $fits;
            is(@{ arrived($up) } - $before, $fits ? 2 : 1, $fits ? 'sent again' : 'sent once');
        }
    }
};

behaviour 'tries= counts attempts, and the client always gets an answer', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        my ($what, $good) = $request->target =~ m{^/(\w+)(?:/(\d+))?};
        return if $what eq 'close' && $conn->number < ($good // 99);
        return $conn->reset if $what eq 'reset';
        $conn->respond(200, [Connection => 'close'], 'fine');
    });
    $t->config('RProxyPass /one ' . $up->url, 'RProxyPass /five ' . $up->url,
        'RProxyPass / ' . $up->url . '/', '<Location /one>', 'RProxyRetry tries=1', '</Location>',
        '<Location /five>', 'RProxyRetry tries=5', '</Location>');
    $t->start;
    my $client = $t->client;
    my $seen = 0;
    for my $case (['GET', '/close', 2], ['GET', '/reset', 2], ['GET', '/one/close', 1],
        ['GET', '/five/close', 5], ['PUT', '/five/reset', 5], ['POST', '/five/close', 1],
        ['POST', '/five/reset', 1]) {
        my ($method, $target, $count) = @$case;
        my $body = $method eq 'GET' ? undef : 'hello';
        is_bad_gateway($client->request($method, $target, { body => $body }), "$method $target");
        is($up->connections - $seen, $count, "$count attempts");
        $seen = $up->connections;
    }
    my $good = $seen + 4;
    is($client->get("/five/close/$good")->body, 'fine', 'the fourth of five attempts succeeds');
    is(scalar $up->connections, $good, 'and is the last one');
    is($client->get('/fine')->status, 200, 'the client connection goes on');
};

behaviour 'refused connections are tried again whatever the method', sub {
    my ($t) = @_;
    my $port = $t->refused_port;
    $t->access_format('%r %>s %{rproxy-attempts}e %{rproxy-error}e');
    $t->config("RProxyPass / http://127.0.0.1:$port/", 'RProxyRetry tries=3');
    $t->start;
    for my $method ('GET', 'POST', 'PUT') {
        my $response = $t->request($method, '/', { body => $method eq 'GET' ? undef : 'x' });
        is($response->status, 502, $method);
        like($response->header('Proxy-Status'), qr/error=connection_refused/, 'says why');
        $t->wait_access_log(qr{^$method / HTTP/\S+ 502 3 connection-refused$});
    }
    my $response = $t->request('POST', '/', { body => 'x' x 500_000 });
    is($response->status, 502, 'a long body');
    $t->wait_log(qr/RP0103/);
    ok(1, 'the log names the reason');
};

behaviour 'a POST of which no byte was sent is tried again', sub {
    my ($t) = @_;
    my $certificate = $t->certs->server(['IP:127.0.0.1']);
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        if ($conn->number == 1) {
            $conn->read_some;    # of the handshake
            return;
        }
        $conn->start_tls(SSL_server => 1, SSL_cert_file => $certificate->{cert},
            SSL_key_file => $certificate->{key});
        my $request = $conn->read_request;
        $conn->respond(200, [Connection => 'close'], $request->body);
    });
    $t->config('RProxyPass / ' . $up->url('https') . '/', 'RProxyTLS ca=' . $t->certs->ca_file);
    $t->start;
    my $response = $t->request('POST', '/', { body => 'hello' });
    is($response->status, 200, 'answered');
    is($response->body, 'hello', 'with its body');
    is(scalar $up->connections, 2, 'in the second attempt');
};

behaviour 'status codes of RProxyRetry on= are tried again where that is safe', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my ($status, $times) = $request->target =~ m{^/(\d+)/(\d+)};
            my $again = grep { $_->target eq $request->target
                    && $_->method eq $request->method } $conn->{upstream}->requests;
            if ($times == 2) {
                # Interim responses of one attempt are none of the next one.
                return if $again == 2;
                $conn->write("HTTP/1.1 102 Processing\r\n\r\n");
            }
            $conn->respond($again <= $times ? $status : 200, ['X-Number' => $again],
                $request->body . " $again");
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyRetry tries=3 on=error,503,504');
    $t->start;
    for my $case (['GET', '/503/1', 200, 2], ['GET', '/504/2', 200, 3], ['GET', '/503/9', 503, 3],
        ['GET', '/502/1', 502, 1], ['PUT', '/503/1', 200, 2], ['POST', '/503/1', 503, 1]) {
        my ($method, $target, $status, $number) = @$case;
        my $body = $method eq 'GET' ? '' : 'hello';
        my $response = $t->request($method, $target, { body => length $body ? $body : undef });
        is($response->status, $status, "$method $target");
        is($response->header('X-Number'), $number, "attempt $number");
        is($response->body, "$body $number", 'its body, and no other');
        is($response->header('Proxy-Status'), undef, 'an answer of the upstream');
    }
};

behaviour 'a slow first byte is tried again with on=timeout only', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        if ($conn->number == 1 || $request->target eq '/never') {
            $conn->wait_closed;
            return;
        }
        $conn->respond(200, [Connection => 'close'], $request->body);
    });
    $t->config('RProxyPass /off ' . $up->url, 'RProxyPass / ' . $up->url . '/',
        'RProxyTimeout first-byte=1s', 'RProxyRetry on=timeout', '<Location /off>',
        'RProxyRetry on=error', '</Location>');
    $t->start;
    my $client = $t->client;
    my $response = $client->request('PUT', '/', { body => 'hello' });
    is($response->status, 200, 'answered in the second attempt');
    is($response->body, 'hello', 'with its body');
    is(scalar $up->connections, 2, 'two attempts');
    $response = $client->get('/off/never');
    is($response->status, 504, 'without on=timeout: 504');
    like($response->header('Proxy-Status'), qr/error=http_response_timeout/, 'says why');
    is(scalar $up->connections, 3, 'one attempt');
    $response = $client->request('POST', '/never', { body => 'x' });
    is($response->status, 504, 'POST: 504');
    is(scalar $up->connections, 4, 'one attempt');
};

done_testing;
