#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Bodies in both directions: framing, sizes around the borders of buffers, trailers, streaming, and
# memory that stays bounded when one side pauses.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes ();

use constant {
    MIB      => 1_048_576,
    BULK_MIB => 64,
};

# Every eight bytes say where they are, so that nothing can be lost, doubled or swapped unseen.
sub content {
    my ($size) = @_;
    return substr join('', map { sprintf "%07x\n", $_ } 0 .. $size / 8), 0, $size;
}

my @SIZES = (0, 1, 4_095, 4_096, 32_767, 32_768, 49_151, 49_152, 49_153, 65_536, MIB + 1);

behaviour 'request and response bodies of any size arrive unchanged', sub {
    my ($t) = @_;
    my $up = $t->upstream->echo;
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $size (@SIZES) {
        my $body = content($size);
        for my $chunked (0, 1) {
            my $name = $size . ($chunked ? ' bytes without a length' : ' bytes');
            my $response = $client->request('POST', '/', {
                body => $body, chunked => $chunked, timeout => 30 });
            is($response->status, 200, $name);
            ok($response->body eq $body && $response->complete, 'came back');
            is($response->header('Content-Length'), $size, 'length of the response');
            my $request = $up->request;
            ok($request->body eq $body && $request->complete, 'reached the upstream');
            my @framing = map { $request->headers_all($_) } qw(Content-Length Transfer-Encoding);
            # Over HTTP/2 an empty body without a length is no body.
            my @expected = $t->is_h2 && $chunked && !$size ? () : $chunked ? 'chunked' : $size;
            is_deeply(\@framing, \@expected, 'in the framing of the client');
        }
    }
    is(scalar $up->connections, 1, 'all over one upstream connection');
};

# A chunked body's bytes, in the chunk sizes given (the last one again and again), with the
# liberties that the coding allows: extensions, upper case, leading zeros.
sub coded {
    my ($body, @sizes) = @_;
    my $wire = '';
    for (my $number = 0; length $body; $number++) {
        my $piece = substr $body, 0, $sizes[$number] // $sizes[-1], '';
        my $head = sprintf((qw(%x %X 000%x %x;a=b %x;q="c;d"))[$number % 5], length $piece);
        $wire .= "$head\r\n$piece\r\n";
    }
    return "${wire}0\r\n\r\n";
}

my %CODED = (
    ones   => coded(content(300), 1),
    rising => coded(content(40_000), 1 .. 280),
    # The framing's own bytes wander over the border of a 48 KiB buffer.
    border => coded(content(40 * 49_152), map { 49_152 - $_ } 1 .. 40),
    large  => coded(content(2 * MIB), 700_000),
);
my %CODED_SIZE = (ones => 300, rising => 40_000, border => 40 * 49_152, large => 2 * MIB);

behaviour 'chunked responses arrive unchanged, however they are cut', sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 1, sub {
        my ($conn) = @_;
        setsockopt $conn->socket, IPPROTO_TCP, TCP_NODELAY, 1;
        while (my $request = $conn->read_request) {
            my ($name, $step) = $request->target =~ m{^/(\w+)/(\d+)};
            my $wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n$CODED{$name}";
            while (length $wire) {
                $conn->write(substr $wire, 0, $step, '') or return;
            }
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $case (qw(ones/1 ones/2 ones/9999 rising/7 rising/9999 border/49152 border/9999999
        large/16384 large/9999999)) {
        my ($name) = split m{/}, $case;
        my $response = $client->request('GET', "/$case", { timeout => 30 });
        ok($response->body eq content($CODED_SIZE{$name}), $case);
        ok($response->complete, 'complete');
    }
    is(scalar $up->connections, 1, 'the upstream connection is kept');
};

behaviour 'a response that ends with its connection arrives whole', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->write("HTTP/1.0 200 OK\r\n\r\n" . content(substr $request->target, 1));
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $size (@SIZES) {
        my $response = $client->request('GET', "/$size", { timeout => 30 });
        ok($response->body eq content($size) && $response->complete, "$size bytes");
        is($response->framing, 'chunked', 'its end is visible') if !$t->is_h2;
    }
    is(scalar $up->connections, scalar @SIZES, 'each over an upstream connection of its own');
};

behaviour 'HEAD, 204 and 304 have no body and keep both connections', sub {
    my ($t) = @_;
    my %answer = (
        '/length'  => "200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
        '/chunked' => "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        '/none'    => "200 OK\r\nX-None: 1\r\n\r\n",
        '/204'     => "204 No Content\r\n\r\n",
        '/304'     => "304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
        '/404'     => "404 Not Found\r\nContent-Length: 7\r\n\r\n",
        '/body'    => "200 OK\r\nContent-Length: 4\r\n\r\nbody",
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->write("HTTP/1.1 $answer{ $request->target }");
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my @cases = (HEAD => '/length', HEAD => '/chunked', HEAD => '/none', HEAD => '/204',
        GET => '/204', GET => '/304', HEAD => '/304', POST => '/204', HEAD => '/404');
    while (my ($method, $target) = splice @cases, 0, 2) {
        my $response = $client->request($method, $target, {});
        is($response->status, substr($answer{$target}, 0, 3), "$method $target");
        is($response->body, '', 'no body');
        is($response->header('ETag'), $answer{$target} =~ /ETag/ ? '"a"' : undef, 'ETag');
        is($response->header('Content-Length'), $target eq '/length' ? 5 : 7, 'length')
            if $target =~ /length|404/;
        is($response->header('Content-Length'), undef, 'no length') if $target eq '/204';
        is($client->get('/body')->body, 'body', 'what follows is not shifted');
    }
    is(scalar $up->connections, 1, 'one upstream connection');
};

behaviour 'HTTP/1.0 clients get bodies they understand', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $body = content(100_000) . $request->body;
            $conn->write("HTTP/1.1 200 OK\r\n" . ($request->target eq '/chunked'
                ? "Transfer-Encoding: chunked\r\n\r\n" . coded($body, 30_000)
                : 'Content-Length: ' . length($body) . "\r\n\r\n$body"));
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;

    my $client = $t->raw_client;
    my $fields = "HTTP/1.0\r\nHost: www.example.test\r\nConnection: keep-alive\r\n";
    $client->write("GET /chunked $fields\r\n");
    my $response = $client->read_response;
    is($response->header('Transfer-Encoding'), undef, 'no chunked coding for HTTP/1.0');
    is($response->framing, 'close', 'the end of the connection ends it');
    ok($response->body eq content(100_000) && $response->complete, 'body');

    $client = $t->raw_client;
    for my $number (1 .. 2) {
        $client->write("POST /length ${fields}Content-Length: 4\r\n\r\nlast");
        $response = $client->read_response;
        ok($response->body eq content(100_000) . 'last' && $response->complete, "body $number");
        like($response->header('Connection'), qr/keep-alive/i, 'kept alive as asked');
    }
    $client->write("GET /length HTTP/1.0\r\nHost: www.example.test\r\n\r\n");
    ok($client->read_response->complete, 'without keep-alive');
    is($client->wait_closed, 'eof', 'the connection ends');
};

behaviour 'pipelined requests are answered in their order', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->wait_for('go') if $request->target eq '/1';
            $conn->respond(200, [], $request->target . ' ' . $request->body);
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->raw_client;
    my $head = "HTTP/1.1\r\nHost: www.example.test\r\n";
    $client->write("GET /1 $head\r\nPOST /2 ${head}Content-Length: 5\r\n\r\nhelloGET /3 $head\r\n"
            . "POST /4 ${head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            . "GET /5 ${head}Connection: close\r\n\r\n");
    $up->wait_requests(1);
    $up->signal('go');
    is($client->read_response->body, $_, 'answer') for '/1 ', '/2 hello', '/3 ', '/4 abc', '/5 ';
    is($client->wait_closed, 'eof', 'closed after the last one, as asked');
    is_deeply([map { $_->target } $up->requests], [map { "/$_" } 1 .. 5], 'order at the upstream');
};

behaviour 'trailers travel both ways and add nothing to the heads', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->respond(200, ['Transfer-Encoding' => 'chunked', 'Trailer' => 'X-Sum']);
            $conn->write_chunk('abc');
            $conn->write_chunk('def');
            $conn->write_last_chunk('X-Sum' => 'six', 'X-Two' => 'b c');
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $number (1 .. 2) {
        my @pieces = ('hel', 'lo');
        my $response = $client->request('POST', '/', {
            headers  => ['TE' => 'trailers'],
            body     => sub { return shift @pieces },
            trailers => ['X-Check' => 'five', 'X-Other' => '2'],
        });
        is($response->body, 'abcdef', 'body');
        ok($response->complete, 'complete');
        is($response->trailer('X-Sum'), 'six', 'response trailer');
        is($response->trailer('X-Two'), 'b c', 'another one');
        is($response->header('X-Sum'), undef, 'not in the head');
        my $request = $up->request;
        is($request->body, 'hello', 'request body');
        is($request->trailer('X-Check'), 'five', 'request trailer');
        is($request->trailer('X-Other'), '2', 'another one');
        is($request->header('X-Check'), undef, 'not in the head');
    }
    is($client->get('/')->body, 'abcdef', 'what follows is not shifted');
};

my %STREAM = (
    chunked => ["Transfer-Encoding: chunked\r\n",
        sub { sprintf "%x\r\n%s\r\n", length $_[0], $_[0] }, "0\r\n\r\n"],
    length  => ["Content-Length: 24\r\n", sub { $_[0] }, ''],
    close   => ['', sub { $_[0] }, ''],
);

behaviour 'a response arrives piece by piece as the upstream sends it', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        my $framing = substr $request->target, 1;
        my ($fields, $code, $end) = @{ $STREAM{$framing} };
        $conn->write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n$fields\r\n");
        for my $number (1 .. 3) {
            $conn->wait_for($framing);
            $conn->write($code->("event $number\n"));
        }
        $conn->write($end);
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $framing (sort keys %STREAM) {
        my $exchange = $t->begin('GET', "/$framing");
        is($exchange->head->status, 200, "$framing: the head comes before any body");
        for my $number (1 .. 3) {
            $up->signal($framing);
            is($exchange->read_until(qr/\n/), "event $number\n", "event $number");
        }
        my $response = $exchange->response;
        is($response->body, "event 1\nevent 2\nevent 3\n", 'all of it');
        ok($response->complete, 'complete');
        $exchange->close;
    }
};

behaviour 'a request body reaches the upstream before it is complete', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_head;
        $conn->notify('head');
        $conn->respond(200, ['Transfer-Encoding' => 'chunked']) if $request->target eq '/both';
        my $body = '';
        while ((my $piece = $conn->read_body_piece) ne '') {
            $body .= $piece;
            $conn->write_chunk("got $piece") if $request->target eq '/both';
            $conn->notify($piece);
        }
        return $conn->write_last_chunk if $request->target eq '/both';
        $conn->respond(200, [], $body);
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $framing ([], ['Content-Length' => 10]) {
        my $exchange = $t->begin('POST', '/one', { stream => 1, headers => $framing });
        $up->wait_event('head');
        for my $piece ('hello', 'world') {
            $exchange->write($piece);
            $up->wait_event($piece);
        }
        $exchange->finish;
        is($exchange->response->body, 'helloworld', @$framing ? 'with a length' : 'without');
        $exchange->close;
    }
    my $exchange = $t->begin('POST', '/both', { stream => 1 });
    for my $piece ("ping\n", "pong\n") {
        $exchange->write($piece);
        is($exchange->read_until(qr/\n/), "got $piece", 'both directions at once');
    }
    $exchange->finish;
    my $response = $exchange->response;
    is($response->body, "got ping\ngot pong\n", 'the whole answer');
    ok($response->complete, 'complete');
};

# ---- memory ---------------------------------------------------------------------------------

# One child with few threads serves everything, so that its memory tells.
sub one_child {
    my ($t) = @_;
    my $prefork = $t->mpm eq 'prefork';
    $t->mpm_config($prefork ? (StartServers => 1, MinSpareServers => 1, MaxSpareServers => 1,
            ServerLimit => 1, MaxRequestWorkers => 1)
        : (ThreadsPerChild => 2, MaxRequestWorkers => 2, MinSpareThreads => 1,
            MaxSpareThreads => 2));
    return;
}

# mod_http2 widens the window of a fast stream up to 2 MiB.
sub growth_limit {
    my ($t) = @_;
    return MIB * ($ENV{RPROXY_PRELOAD} || $ENV{RPROXY_VALGRIND} ? 16 : $t->is_h2 ? 4 : 1);
}

# A sanitizer keeps what was freed, but no more than this.
sub small_quarantine {
    return join ':', $ENV{ASAN_OPTIONS} // (), 'quarantine_size_mb=4',
        'thread_local_quarantine_size_kb=64';
}

# Waits until the condition's value has been the same for half a second.
sub wait_settled {
    my ($what, $value) = @_;
    my ($last, $since) = ($value->(), Time::HiRes::time());
    wait_until("$what to settle", 30, sub {
        my $now = $value->();
        ($last, $since) = ($now, Time::HiRes::time()) if $now ne $last;
        return Time::HiRes::time() - $since > 0.5;
    });
    return $last;
}

behaviour 'a large download to a client that pauses needs little memory', sub {
    my ($t) = @_;
    my $block = content(MIB);
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request(60)) {
            my ($count) = $request->target =~ m{^/(\d+)};
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . $count * MIB . "\r\n\r\n");
            for (1 .. $count) {
                $conn->write($block, 60) or return;
                $conn->notify('block');
            }
        }
    });
    one_child($t);
    local $ENV{ASAN_OPTIONS} = small_quarantine();
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my ($pid, $before);
    for my $count (2, BULK_MIB) {
        my $exchange = $t->begin('GET', "/$count", { client => { receive_buffer => 65_536 } });
        is($exchange->head->status, 200, "$count MiB");
        my $sent = wait_settled('the upstream', sub { $up->count('block') });
        cmp_ok($sent, '<', BULK_MIB, 'the upstream is held back') if $count == BULK_MIB;
        my $got = 0;
        my $wrong = 0;
        my $rest = '';
        while ((my $piece = $exchange->read_some(60)) ne '') {
            $got += length $piece;
            $rest .= $piece;
            while (length $rest >= MIB) {
                $wrong++ if substr($rest, 0, MIB, '') ne $block;
            }
        }
        is($got, $count * MIB, 'all bytes');
        is($wrong, 0, 'unchanged');
        $exchange->close;
        cmp_ok($t->memory($pid)->{peak} - $before, '<', growth_limit($t), 'memory') if $pid;
        $pid = $t->child_pid;
        $before = $t->memory($pid)->{rss};
        $t->reset_peak($pid);
    }
};

behaviour 'a large upload to an upstream that pauses needs little memory', sub {
    my ($t) = @_;
    my $block = content(MIB);
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $head = $conn->read_head(60);
        my ($count) = $head->target =~ m{^/(\d+)};
        if ($count == BULK_MIB) {
            $conn->notify('paused');
            $conn->wait_for('go', 60);
        }
        my ($got, $wrong, $rest) = (0, 0, '');
        while ((my $piece = $conn->read_body_piece(60)) ne '') {
            $got += length $piece;
            $rest .= $piece;
            while (length $rest >= MIB) {
                $wrong++ if substr($rest, 0, MIB, '') ne $block;
            }
        }
        $conn->respond(200, [Connection => 'close'], "$got bytes, $wrong wrong");
    });
    one_child($t);
    local $ENV{ASAN_OPTIONS} = small_quarantine();
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $upload = sub {
        my ($count) = @_;
        my $left = $count;
        my $done = $t->file('progress', '');
        my $response = $t->request('PUT', "/$count", { timeout => 60, body => sub {
            return undef unless $left--;
            open my $fh, '>>', $done or die "$done: $!\n";
            syswrite $fh, '.';
            return $block;
        } });
        return $response->body;
    };
    is($upload->(4), 4 * MIB . ' bytes, 0 wrong', 'a small one');
    my $pid = $t->child_pid;
    my $before = $t->memory($pid)->{rss};
    $t->reset_peak($pid);
    my $task = $t->background(sub { $upload->(BULK_MIB) });
    $up->wait_event('paused');
    my $sent = wait_settled('the client', sub { -s $t->directory . '/progress' });
    cmp_ok($sent, '<', BULK_MIB, 'the client is held back');
    $up->signal('go');
    is($task->result(120), BULK_MIB * MIB . ' bytes, 0 wrong', 'all bytes');
    cmp_ok($t->memory($pid)->{peak} - $before, '<', growth_limit($t), 'memory');
};

done_testing;
