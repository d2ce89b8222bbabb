#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# RProxyTimeout: each limit fires by itself, says which one it was, and does not depend on httpd's
# own Timeout.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use IO::Socket::INET;
use RProxy::Wait qw(now);
use Time::HiRes ();

use constant MIB => 1_048_576;

my $LOG = '%r %>s %{rproxy-error}e';

# Runs the requests side by side. Each gets an answer of ours, a limit of half a second after it
# began: (name, sub, status, type in Proxy-Status, reason in the log).
sub are_late {
    my ($t, @cases) = @_;
    my @results = $t->parallel(scalar @cases, sub {
        my ($number) = @_;
        my $start = now();
        my $response = $cases[$number][1]->();
        return { response => $response, seconds => now() - $start };
    });
    for my $case (@cases) {
        my ($name, undef, $status, $type, $reason) = @$case;
        my $result = shift @results;
        my $response = $result->{response};
        cmp_ok($result->{seconds}, '>', 0.45, "$name: not before its time");
        is($response->status, $status, "$name: $status");
        ok($response->complete, 'a complete answer');
        like($response->header('Proxy-Status') // '', qr/; *error=$type$/, 'Proxy-Status');
        $t->wait_access_log(qr{ /$name HTTP/\S+ $status \Q$reason\E$});
    }
    return;
}

# Takes connections of the kernel, none of them accepted, until it takes no more: what must be kept
# for as long as it shall be so.
sub full_listener {
    my ($port) = @_;
    my @held = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1,
        ReuseAddr => 1) or die "cannot listen: $@\n";
    while (@held < 100) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port,
            Blocking => 0) or die "cannot connect: $@\n";
        push @held, $socket;
        my $bits = '';
        vec($bits, $socket->fileno, 1) = 1;
        return @held unless select undef, $bits, undef, 0.3;
    }
    die "the accept queue never fills\n";
}

behaviour 'connect= ends an attempt that nobody takes', sub {
    my ($t) = @_;
    my $port = $t->refused_port;
    my @held = full_listener($port);
    $t->access_format($LOG);
    $t->config("RProxyPass / http://127.0.0.1:$port/", 'RProxyTimeout connect=500ms');
    $t->start;
    are_late($t, ['get', sub { $t->get('/get') }, 504, 'connection_timeout', 'connect-timeout']);
    $t->wait_log(qr/RP0106/);
};

behaviour 'first-byte= ends the wait for an answer and frees the upstream', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->wait_closed(20);
        $conn->notify('closed');
    });
    $t->access_format($LOG);
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout first-byte=500ms');
    $t->start;
    my @late = (504, 'http_response_timeout', 'first-byte-timeout');
    are_late($t, ['get', sub { $t->get('/get') }, @late],
        ['post', sub { $t->request('POST', '/post', { body => 'hello' }) }, @late]);
    $up->wait_event('closed') for 1 .. 2;
    is(scalar $up->connections, 2, 'neither is tried again');
};

behaviour 'idle= ends what has begun and stalls: upstream', sub {
    my ($t) = @_;
    my %sent = (
        '/head'    => "HTTP/1.1 200 OK\r\nContent-",
        '/length'  => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        '/chunked' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        '/close'   => "HTTP/1.1 200 OK\r\n\r\nhello",
    );
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        $conn->write($sent{ $head->target }) if $sent{ $head->target };
        $conn->wait_for('end') if $head->target eq '/upload';
        $conn->wait_closed(20);
        $conn->notify('closed');
    });
    $t->access_format($LOG);
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout idle=1s');
    $t->start;
    my @late = (504, 'connection_read_timeout', 'idle-timeout');
    are_late($t, ['head', sub { $t->get('/head') }, @late],
        ['upload', sub { $t->request('PUT', '/upload', { body => 'x' x (16 * MIB) }) }, @late]);
    my @targets = ('/length', '/chunked', '/close');
    my @responses = $t->parallel(scalar @targets, sub { $t->get($targets[shift]) });
    for my $target (@targets) {
        my $response = shift @responses;
        is($response->status, 200, "$target: begun");
        is($response->body, 'hello', 'so far');
        ok(!$response->complete, 'broken off');
        $t->wait_access_log(qr{ $target HTTP/\S+ 200 idle-timeout$});
    }
    $up->signal('end');
    $up->wait_event('closed') for 1 .. 5;
};

behaviour 'idle= ends what has begun and stalls: a client that sends', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        $conn->read_body(20);
        $conn->wait_closed(20);
        $conn->notify('closed');
    });
    $t->access_format($LOG);
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout idle=500ms');
    $t->start;
    my @late = (408, 'http_request_error', 'client-timeout');
    my $stall = sub {
        my ($target, @framing) = @_;
        my $client = $t->client;
        my $exchange = $client->begin('POST', $target, { stream => 1, headers => \@framing });
        $exchange->write('hello');
        my $response = $exchange->response;
        return $response if $t->is_h2;
        my $closed = $client->wait_closed;
        $response->{complete} = 0 if $closed ne 'eof' || $response->header('Connection') ne 'close';
        return $response;
    };
    are_late($t, ['length', sub { $stall->('/length', 'Content-Length' => 10) }, @late],
        ['chunked', sub { $stall->('/chunked') }, @late]);
    $up->wait_event('closed') for 1 .. 2;
};

behaviour 'idle= ends what has begun and stalls: a client that reads', sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request(30)) {
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 64 * MIB . "\r\n\r\n");
            my $block = 'x' x MIB;
            for (1 .. 64) {
                next if $conn->write($block, 30);
                $conn->notify('cut');
                return;
            }
        }
    });
    # mod_http2 lets its own limit decide how long a stream's client may not read.
    $t->server_config('Timeout 1') if $t->is_h2;
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout idle=500ms');
    $t->start;
    my $exchange = $t->begin('GET', '/', { client => { receive_buffer => 65_536 } });
    is($exchange->head->status, 200, 'begun');
    $up->wait_event('cut', 20);
    ok(1, 'the upstream is not held up');
    $t->wait_log($t->is_h2 ? qr/RP011[89]/ : qr/RP0119: .*client-timeout/);
    my $response = $exchange->response;
    ok(!$response->complete, 'and the client sees that it broke off');
};

# Answers byte by byte without ever pausing for long.
sub trickle {
    my ($conn, $bytes) = @_;
    for my $byte (split //, $bytes) {
        $conn->write($byte) or return 0;
        return 0 unless $conn->quiet_for(0.05);
    }
    return 1;
}

behaviour 'total= ends an exchange that never stalls', sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        $conn->write("HTTP/1.1 200 OK\r\n" . ($head->target eq '/body' ? "\r\n" : ''));
        trickle($conn, 'X-Slow: ' . 'x' x 900);
        $conn->wait_closed(20);
        $conn->notify('closed');
    });
    $t->access_format($LOG);
    $t->config('RProxyPass / ' . $up->url . '/',
        'RProxyTimeout connect=1400ms first-byte=1400ms idle=1400ms total=1500ms');
    $t->start;
    are_late($t, ['head', sub { $t->get('/head') }, 504, 'http_response_timeout', 'total-timeout']);
    my $response = $t->get('/body');
    is($response->status, 200, 'begun');
    like($response->body, qr/^X-/, 'something came');
    ok(!$response->complete, 'broken off');
    $t->wait_access_log(qr{ /body HTTP/\S+ 200 total-timeout$});
    $up->wait_event('closed') for 1 .. 2;
};

# Waits in place of a slow upstream or client: nothing else can show that nobody loses patience.
sub pause { return Time::HiRes::sleep(1.8) }

behaviour 'limits longer than the Timeout of httpd hold', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request(20) or return;
        pause() if $request->target eq '/first-byte';
        $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
        $conn->write_chunk('begun, ');
        pause() if $request->target eq '/idle';
        $conn->write_chunk($request->body);
        $conn->write_last_chunk;
    });
    $t->server_config('Timeout 1');
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout first-byte=20s idle=20s');
    $t->start;
    my @targets = ('/first-byte', '/idle', '/upload');
    my @responses = $t->parallel(scalar @targets, sub {
        my $target = $targets[shift];
        my $exchange = $t->begin('PUT', $target, { stream => 1, timeout => 20 });
        $exchange->write('hello, ');
        pause() if $target eq '/upload';
        $exchange->write('world');
        $exchange->finish;
        return $exchange->response(20);
    });
    for my $number (0 .. $#targets) {
        my $response = $responses[$number];
        is($response->status, 200, "$targets[$number]: answered");
        is($response->body, 'begun, hello, world', 'whole');
        ok($response->complete, 'complete');
    }
};

# Two of these pauses are over the limit; one is not, unless the machine stalls meanwhile.
use constant { LIMIT => 3, PAUSE => 1.8 };

behaviour 'a pause of the client does not count as one of the upstream', sub {
    my ($t) = @_;
    # Over HTTP/2 the window holds the proxy back, else what the kernel's buffers take.
    my $size = $t->is_h2 ? 200_000 : 8 * MIB;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . ($size + 4) . "\r\n\r\n");
        $conn->write('x' x $size, 30) or return;
        $conn->notify('sent' . $request->target);
        $conn->wait_for('end' . $request->target, 30);
        $conn->write('last');
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTimeout idle=' . LIMIT . 's');
    $t->start;
    my ($exchange, $response);
    for my $attempt (1 .. 10) {
        my @times = (now());
        $exchange = $t->begin('GET', "/$attempt", { client => { receive_buffer => 65_536 } });
        $exchange->head;
        Time::HiRes::sleep(PAUSE);
        push @times, now();
        if (eval { $exchange->read_exact($size - 1_000, 30); 1 }) {
            $up->wait_event("sent/$attempt");
            Time::HiRes::sleep(PAUSE);
            $up->signal("end/$attempt");
        }
        $response = $exchange->response;
        push @times, now();
        last if $response->complete || !grep { $times[$_] - $times[$_ - 1] >= LIMIT } 1, 2;
    }
    is($response->status, 200, 'begun');
    ok($response->complete, 'complete');
    is(substr($response->body, -5), 'xlast', 'to its end');
};

done_testing;
