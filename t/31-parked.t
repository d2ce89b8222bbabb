#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Requests that wait hold no thread: every httpd here has four. Nothing else may change by that:
# time limits, keep-alive, pipelining, clients and upstreams that leave.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Compress::Zlib ();
use RProxy::Tunnel;
use RProxy::Wait ();
use RProxy::WebSocket;
use Time::HiRes ();

use constant { MIB => 1_048_576, THREADS => 4 };
use constant UPLOAD => 32 * MIB;         # more than sockets on the way hold

my @HTTP1 = (lanes => ['event', 'tls', 'engine', 'engine-tls']);
my @PARKING = (lanes => [@{ $HTTP1[1] }, 'engine-h2']);
my $PIECE = substr join('', map { sprintf "%07x\n", $_ } 0 .. MIB / 8), 0, MIB;

# One child with four threads, in front of one upstream (UP in the lines), and server-status.
sub few_threads {
    my ($t, $lines, @upstream) = @_;
    my $up = $t->upstream(@upstream);
    my $url = $up->url;
    $t->mpm_config(ThreadsPerChild => THREADS, MaxRequestWorkers => THREADS);
    $t->extra_modules('status');
    $t->config("RProxyPass / $url/", map { s/\bUP\b/$url/gr } @{ $lines // [] });
    # On a port of its own: beside a guard the engine has no HTTP/2.
    $t->{status_port} = $t->listen;
    $t->vhost('status.test', ['<Location />', 'SetHandler server-status', '</Location>'],
        port => $t->{status_port}, tls => 0);
    $t->start;
    return $up;
}

# An upstream's handler: answers /quick at once, everything else when it is told to go.
sub held {
    my ($conn) = @_;
    while (my $request = $conn->read_request) {
        if ($request->target ne '/quick') {
            $conn->notify('arrived');
            $conn->wait_for('go', 30);
        }
        $conn->respond(200, [], $request->target . ' ' . $request->body) or last;
    }
    return;
}

# The numbers of server-status: that it answers shows that a thread is free.
sub status_of {
    my ($t) = @_;
    my $client = $t->raw_client(port => $t->{status_port}, tls => 0);
    my $response = $client->get('/?auto');
    $client->close;
    is($response->status, 200, 'server-status answers') if $response->status != 200;
    return { map { /^(\S+): (\S+)$/ ? ($1 => $2) : () } split /\n/, $response->body };
}

sub wait_parked {
    my ($t, $count) = @_;
    wait_until("$count parked requests", undef,
        sub { return status_of($t)->{RProxyParked} == $count });
    return pass("$count parked");
}

behaviour 'many more requests than threads wait for the upstream at once', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], \&held);
    my @exchanges = map { $t->begin($_ % 2 ? 'GET' : 'POST', "/$_",
        $_ % 2 ? {} : { body => "body $_" }) } 1 .. 40;
    $up->wait_requests(40);
    wait_parked($t, 40);
    cmp_ok(status_of($t)->{BusyWorkers}, '<=', 2, 'the threads are free');
    is($t->get('/quick')->body, '/quick ', 'another request is served');
    is(scalar $up->requests, 41, 'every request is at the upstream');
    $up->signal('go');
    for my $number (1 .. 40) {
        my $response = $exchanges[$number - 1]->response;
        my $body = $number % 2 ? "/$number " : "/$number body $number";
        is($response->body, $body, "answer $number")
            if $number == 1 || $response->status ne '200' || $response->body ne $body;
    }
    wait_parked($t, 0);
    is(status_of($t)->{RProxyActive}, 0, 'nothing is left over');
    wait_until('forty lines in the log', undef, sub {
        return grep({ /^200 .* "(?:GET|POST) \/\d+ / } $t->access_log) == 40;
    });
};

behaviour 'clients that do not read hold no thread', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], record => 0, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $count = $request->target eq '/large' ? 16 : 0;
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . $count * MIB . "\r\n\r\n");
            $conn->write($PIECE, 30) or last for 1 .. $count;
        }
    });
    my @exchanges = map { $t->begin('GET', '/large', { client => { receive_buffer => 16_384 } }) }
        0 .. THREADS;
    wait_parked($t, scalar @exchanges);
    is($t->get('/small')->status, 200, 'another request is served');
    for my $exchange (@exchanges) {
        my $wrong = grep { $exchange->read_exact(MIB) ne $PIECE } 1 .. 16;
        $exchange->{taken} = '';
        my $response = $exchange->response;
        ok(!$wrong && $response->complete && $response->body eq '', 'whole, once it is read');
    }
};

behaviour 'slow uploads hold no thread', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], sub {
        my ($conn) = @_;
        while ($conn->read_head) {
            $conn->notify('head');
            my $request = $conn->read_body;
            $conn->respond(200, [], $request->complete ? $request->body : 'incomplete');
        }
    });
    my @exchanges = map { $t->begin('POST', '/', { stream => 1,
        headers => $_ % 2 ? ['Content-Length' => 20] : [] }) } 1 .. 8;
    $_->write('0123456789') for @exchanges;
    $up->wait_event('head') for @exchanges;
    wait_parked($t, 8);
    is($t->get('/')->status, 200, 'another request is served');
    for my $exchange (@exchanges) {
        $exchange->write('abcdefghij');
        $exchange->finish;
    }
    is($_->response->body, '0123456789abcdefghij', 'complete') for @exchanges;
};

behaviour 'uploads to an upstream that does not read hold no thread', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], record => 0, sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        $conn->wait_for('go', 30) if $head->method eq 'POST';
        my $length = 0;
        while ((my $piece = $conn->read_body_piece) ne '') {
            $length += length $piece;
        }
        $conn->respond(200, [Connection => 'close'], $length);
    });
    my @exchanges = map { $t->begin('POST', '/', { stream => 1,
        headers => ['Content-Length' => UPLOAD] }) } 1 .. 6;
    my @sent;
    for my $number (0 .. 5) {
        my $exchange = $exchanges[$number];
        my $way = $t->is_h2 ? $exchange : $exchange->client;
        $sent[$number] = 0;
        do {
            $sent[$number] += $way->write_now(substr $PIECE, $sent[$number] % MIB);
        } until $sent[$number] >= UPLOAD || !can_write($t, $exchange);
        cmp_ok($sent[$number], '<', UPLOAD, 'held up');
    }
    wait_parked($t, 6);
    is($t->get('/')->status, 200, 'another request is served');
    $up->signal('go');
    for my $number (0 .. 5) {
        while ((my $left = UPLOAD - $sent[$number]) > 0) {
            my $piece = substr $PIECE, $sent[$number] % MIB, $left;
            $exchanges[$number]->write($piece, 30);
            $sent[$number] += length $piece;
        }
        is($exchanges[$number]->response->body, UPLOAD, 'the whole upload, once it is read');
    }
};

# False if nothing can be written for a while.
sub can_write {
    my ($t, $exchange) = @_;
    if ($t->is_h2) {
        my $client = $exchange->client;
        until ($exchange->room) {
            return 0 if $client->stream->quiet_for(0.3) || !$client->step('WINDOW_UPDATE');
        }
        return 1;
    }
    my $bits = '';
    vec($bits, $exchange->client->socket->fileno, 1) = 1;
    return select undef, $bits, undef, 0.3;
}

behaviour 'idle tunnels hold no thread and no CPU', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
        $conn->wait_for('end', 30);
    });
    my @tunnels = map { RProxy::Tunnel->open($t, '/') } 1 .. 12;
    wait_parked($t, 12);
    is(status_of($t)->{RProxyTunnels}, 12, 'tunnels');
    $_->half_close for @tunnels[8 .. 11];
    wait_until('four ends at the upstream', undef,
        sub { return grep({ $_->{closed} } $up->connections) == 4 });
    my $before = $t->cpu;
    ok($tunnels[0]->quiet_for(0.5), 'quiet');
    cmp_ok($t->cpu - $before, '<=', 20, 'next to no CPU, also with one direction ended');
    for my $tunnel (@tunnels[0 .. 7]) {
        my $socket = RProxy::WebSocket->over($tunnel);
        $socket->send_text('still there');
        my $echoed = $socket->read_text;
        is($echoed, 'still there', 'open') if $tunnel == $tunnels[0] || $echoed ne 'still there';
    }
    wait_parked($t, 12);
    $_->close for @tunnels;
    $up->signal('end');
    wait_parked($t, 0);
    is(status_of($t)->{RProxyTunnels}, 0, 'none is left over');
};

behaviour 'what a client sends while its request is parked waits its turn', @HTTP1, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], \&held);
    my $client = $t->raw_client;
    $client->begin('GET', '/first');
    $up->wait_event('arrived');
    wait_parked($t, 1);
    $client->begin('POST', '/second', { body => 'two' });
    $client->begin('GET', '/third');
    my $before = $t->cpu;
    ok($client->quiet_for(0.5), 'nothing is answered out of turn');
    cmp_ok($t->cpu - $before, '<=', 20, 'and bytes that wait cost no CPU');
    is(scalar $up->requests, 1, 'nor sent');
    for my $answer ('/first ', '/second two', '/third ') {
        $up->signal('go');
        is($client->read_response->body, $answer, 'in order');
    }
    $client->begin('GET', '/fourth');
    $up->signal('go');
    is($client->read_response->body, '/fourth ', 'the connection is kept');
};

behaviour 'parked and woken again and again, nothing gets lost', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t)->crowd(delay => 0.03,
        reply => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply");
    my (@clients, @wrong);
    for my $round (1 .. 15) {
        my @exchanges = map { ($clients[$_] //= $t->client)->begin('GET', "/$round") } 0 .. 23;
        for my $exchange (@exchanges) {
            my $response = $exchange->response;
            push @wrong, "round $round: " . ($response->error // $response->status)
                if $response->body ne 'reply' || !$response->complete;
        }
    }
    is_deeply(\@wrong, [], '360 requests on 24 connections');
    wait_parked($t, 0);
    is(status_of($t)->{RProxyRequests}, 360, 'each is sent once');
};

# Not over HTTP/2: what a filter sees is the pipeline's.
behaviour 'idle clients are kept while all threads are busy', @HTTP1, sub {
    my ($t) = @_;
    $t->extra_modules('deflate', 'filter');
    my $up = few_threads($t, ['KeepAliveTimeout 50', '<Location /hold>', 'SetInputFilter DEFLATE',
        '</Location>'], sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            $conn->notify('arrived');
            my $request = $conn->read_body;
            $conn->wait_for('go', 30) if $request->target eq '/parked';
            $conn->respond(200, [], $request->target) or last;
        }
    });
    my $parked = $t->begin('GET', '/parked');
    wait_parked($t, 1);
    # With a single idle thread the MPM may take no new connections for as long as that lasts: who
    # holds the threads has a connection before.
    my (@idle, @busy);
    for my $number (1 .. 5 + THREADS) {
        my $client = $t->raw_client;
        is($client->get('/idle')->body, '/idle', 'a client that stays');
        push @{ $number <= 5 ? \@idle : \@busy }, $client;
    }
    my $seen = $up->count('arrived');
    # A filter that unpacks cannot wait without a thread.
    my $packed = Compress::Zlib::memGzip(join '', map { "line $_\n" } 1 .. 10_000);
    my @holding = map { $_->begin('POST', '/hold', { stream => 1, headers =>
            ['Content-Encoding' => 'gzip', 'Content-Length' => length $packed] }) } @busy;
    $_->write(substr $packed, 0, -20) for @holding;
    wait_until('all threads to be busy', undef,
        sub { return $up->count('arrived') == $seen + THREADS });
    my $waiting = $idle[0]->begin('GET', '/again');
    ok($idle[1]->quiet_for(0.3), 'nobody is sent away');
    $_->abort for @holding;
    is($waiting->response->body, '/again', 'who asked is served once a thread is free');
    is($_->get('/again')->body, '/again', 'and so are the others') for @idle[1 .. 4];
    $up->signal('go');
    is($parked->response->body, '/parked', 'the parked one as well');
};

behaviour 'KeepAliveTimeout ends idle clients, and nobody else', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, ['KeepAliveTimeout 1500ms'], \&held);
    my $client = $t->client;
    is($client->get('/quick')->status, 200, 'nothing is parked');
    ok($client->quiet_for(0.3), 'kept for a while');
    is($client->wait_closed, 'eof', 'and then closed');

    my $parked = $t->client;
    my $exchange = $parked->begin('GET', '/parked');
    wait_parked($t, 1);
    $client = $t->client;
    is($client->get('/quick')->status, 200, 'beside a parked one');
    ok($client->quiet_for(0.3), 'kept for a while');
    is($client->get('/quick')->status, 200, 'a request on it');
    ok($client->quiet_for(0.3), 'begins the time anew');
    is($client->wait_closed, 'eof', 'and then closed');
    ok($parked->quiet_for(0.3), 'not the parked one');
    $up->signal('go');
    is($exchange->response->body, '/parked ', 'which gets its answer');
    ok($parked->quiet_for(0.3), 'is idle then');
    is($parked->wait_closed, 'eof', 'and closed as well');
};

behaviour 'MaxKeepAliveRequests holds for parked requests', @HTTP1, sub {
    my ($t) = @_;
    my $up = few_threads($t, ['MaxKeepAliveRequests 3'], \&held);
    my $client = $t->raw_client;
    # The first request is not counted: it needs no connection that was kept.
    for my $number (0 .. 3) {
        my $exchange = $client->begin('GET', "/$number");
        $up->wait_event('arrived');
        $up->signal('go');
        my $response = $exchange->response;
        is($response->body, "/$number ", "request $number");
        is(lc($response->header('Connection') // ''), $number == 3 ? 'close' : '', 'Connection');
    }
    is($client->wait_closed(2), 'eof', 'closed after the last');
};

behaviour 'parked requests of an upstream that dies are answered', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], \&held);
    my @exchanges = map { $t->begin('POST', '/', { body => 'x' }) } 1 .. 10;
    push @exchanges, map { $t->begin('GET', '/') } 1 .. 10;
    $up->wait_requests(20);
    wait_parked($t, 20);
    $up->refuse;
    for my $exchange (@exchanges) {
        my $response = $exchange->response;
        like($response->status, qr/^50[23]$/, 'answered')
            if $exchange == $exchanges[0] || $response->status !~ /^50[23]$/;
        ok(0, 'no Proxy-Status') if !defined $response->header('Proxy-Status');
    }
    is($exchanges[0]->head->status, 502, 'a POST is not sent again: 502');
    wait_parked($t, 0);
    $up->start;
    is($t->get('/quick')->status, 200, 'it is back');
};

behaviour 'each parked request keeps its own time limit', @PARKING, sub {
    my ($t) = @_;
    my %limit = (a => 0.3, b => 0.6, c => 0.9, d => 1.2);
    my $up = few_threads($t, [map { ("<Location /$_>", "RProxyPass UP/$_",
        'RProxyTimeout first-byte=' . $limit{$_} * 1_000 . 'ms', '</Location>') } sort keys %limit],
        \&held);
    my $begun = RProxy::Wait::now();
    my $unlimited = $t->begin('GET', '/unlimited');
    my %exchanges;
    for my $number (1 .. 6) {
        push @{ $exchanges{$_} }, $t->begin('GET', "/$_") for reverse sort keys %limit;
    }
    for my $group (sort keys %limit) {
        my @statuses = map { $_->response->status } @{ $exchanges{$group} };
        my $after = RProxy::Wait::now() - $begun;
        is_deeply(\@statuses, [(504) x 6], "group $group: 504");
        cmp_ok($after, '>=', $limit{$group}, 'not too early');
        my ($next) = map { $exchanges{$_} } grep { $limit{$_} > $after } sort keys %limit;
        ok(!$next || $next->[0]->client->quiet_for(0) || RProxy::Wait::now() - $begun
                > $limit{$group} + 0.2, 'before the others');
    }
    $up->signal('go');
    is($unlimited->response->status, 200, 'without a short limit: answered');
};

behaviour 'a limit above Timeout holds while parked', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, ['Timeout 1', 'RProxyTimeout first-byte=30s idle=30s'], \&held);
    my $exchange = $t->begin('GET', '/');
    my $upload = $t->begin('POST', '/upload', { stream => 1, headers => ['Content-Length' => 5] });
    $up->wait_event('arrived');
    ok($exchange->client->quiet_for(2.5), 'still waiting');
    $upload->write('hello');
    $up->signal('go');
    is($exchange->response->body, '/ ', 'answered');
    is($upload->response->body, '/upload hello', 'the upload too');
};

behaviour 'a client that leaves while parked frees its upstream connection', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->wait_closed;
        $conn->notify('gone');
    });
    my @exchanges = map { $t->begin('GET', '/') } 1 .. 20;
    $up->wait_requests(20);
    wait_parked($t, 20);
    $_->abort for @exchanges[0 .. 9];
    $up->wait_event('gone') for 0 .. 9;
    wait_parked($t, 10);
    $_->close for @exchanges[10 .. 19];
    $up->wait_event('gone') for 10 .. 19;
    wait_parked($t, 0);
    is(status_of($t)->{RProxyActive}, 0, 'nothing is left over');
    wait_until('20 lines in the log', undef,
        sub { return grep({ /^499 / } $t->access_log) == 20 });
    my $descriptors = $t->descriptors;
    cmp_ok($descriptors, '<', 40, 'no descriptor is left behind') or diag($descriptors);
};

behaviour 'parked responses stream as they come', @PARKING, sub {
    my ($t) = @_;
    my $up = few_threads($t, [], sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->respond(200, ['Content-Type' => 'text/event-stream',
            'Transfer-Encoding' => 'chunked', Connection => 'close']);
        for my $number (1 .. 5) {
            $conn->wait_for('go', 30);
            $conn->write_chunk("event $number\n");
        }
        $conn->write_last_chunk;
    });
    my @exchanges = map { $t->begin('GET', '/') } 1 .. 10;
    $up->wait_requests(10);
    for my $number (1 .. 5) {
        wait_parked($t, 10);
        $up->signal('go');
        for my $exchange (@exchanges) {
            my $event = $exchange->read_until(qr/\n/);
            is($event, "event $number\n", "event $number")
                if $exchange == $exchanges[0] || $event ne "event $number\n";
        }
    }
    is(scalar grep({ $_->response->complete } @exchanges), 10, 'all complete');
};

done_testing;
