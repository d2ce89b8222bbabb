#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The access log of the engine has the same lines as the pipeline's, and mod_status counts alike.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Lanes;
use RProxy::WebSocket;

my @engine = (lanes => [qw(engine engine-tls)]);
my $host = "Host: www.example.test\r\n";

# One letter, what it is; what is different by nature comes first: lane, port, times, ids.
my @ITEMS = ('%{rproxy-lane}e', '%{local}p', '%p', '%h', '%a', '%{c}a', '%A', '%l', '%u', '%r',
    '%m', '%U',
    '%q', '%H', '%s', '%>s', '%b', '%B', '%I', '%O', '%S', '%X', '%k', '%f', '%v', '%V', '%R',
    '%{Referer}i', '%{User-Agent}i', '%{Host}i', '%{X-Two}i', '%{X-Foo}o',
    '%{Content-Type}o', '%{Content-Length}o', '%{Connection}o',
    '%{Set-Cookie}o', '%{X-None}o', '%{REQUEST_METHOD}e', '%{rproxy-target}e',
    '%{rproxy-upstream}e', '%{rproxy-attempts}e', '%{rproxy-status}e', '%{rproxy-error}e',
    '%{note}n', '%{X-T}^ti', '%{X-T}^to', '%L', '%{cookie}C', '%{UNSET}e');

# A TLS handshake has signatures of different length.
sub sizes { my ($t) = @_; return $t->is_tls ? map { $_ => 'handshake' } qw(%I %O %S) : () }

my $reply = sub {
    my ($request, $conn) = @_;
    my ($what) = $request->target =~ m{^/(\w+)};
    return undef if $what eq 'gone';
    return [304, ['X-Foo' => 'bar', ETag => '"x"']] if $what eq 'unchanged';
    return [204, ['X-Foo' => 'bar']] if $what eq 'empty';
    return [404, ['Content-Type' => 'text/html'], 'not here'] if $what eq 'missing';
    return [500, [], 'broken'] if $what eq 'broken';
    return [200, ['Transfer-Encoding' => 'chunked', 'X-Foo' => 'bar'],
        "3\r\nabc\r\n10000\r\n" . 'x' x 65_536 . "\r\n0\r\nX-T: t\r\n\r\n"] if $what eq 'chunked';
    return [200, ['X-Foo' => 'a"b', 'X-Foo' => 'c', 'Set-Cookie' => 'a=b', 'Set-Cookie' => 'c=d'],
        $request->body];
};

sub proxied {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->on_request($reply);
    my $lanes = RProxy::Lanes->configure($t, [@lines, 'RProxyPass /refused http://127.0.0.1:'
            . $t->refused_port . '/', 'RProxyPass / ' . $up->url . '/']);
    $t->access_format(join '\t', @ITEMS);
    $t->start;
    return ($lanes, $up);
}

# What both lanes have logged for the same requests: the engine's and the pipeline's lines.
sub lines {
    my ($t, $lanes, $count) = @_;
    wait_until("$count lines of the log", undef, sub { return $t->access_log == $count });
    my %lines = (engine => [], pipeline => []);
    for my $line ($t->access_log) {
        my ($lane, $port, $rest) = split /\t/, $line, 3;
        my $which = $port == $lanes->port('engine') ? 'engine' : 'pipeline';
        push @{ $lines{$which} }, $rest;
        push @{ $lines{"$which lane"} }, $lane;
    }
    return \%lines;
}

# Items named in %but may differ: { item => reason }. %L is an id: set or not is what counts.
sub compare {
    my ($name, $engine, $pipeline, %but) = @_;
    my @items = map { [split /\t/] } $engine, $pipeline;
    my @names = @ITEMS[2 .. $#ITEMS];
    my @different = grep {
        my ($one, $other) = ($items[0][$_] // 'missing', $items[1][$_] // 'missing');
        s/.{2,}/set/ for $names[$_] eq '%L' ? ($one, $other) : ();
        $one ne $other && !$but{ $names[$_] };
    } 0 .. $#names;
    return is(join('; ', map { "$names[$_] $items[0][$_]" } @different),
        join('; ', map { "$names[$_] $items[1][$_]" } @different), "$name: the same line");
}

my $fields = "Referer: http://x/\"y\"\r\nUser-Agent: test \xe4\r\nX-Two: 1\r\nX-Two: 2\r\n"
    . "Cookie: cookie=v\r\n";
my @REQUESTS = (
    'plain' => "GET /plain HTTP/1.1\r\n$host$fields\r\n",
    'query' => "GET /plain?a=b&c=%20d HTTP/1.1\r\n$host\r\n",
    'encoded' => "GET /pl%61in/%20x/..//y HTTP/1.1\r\n$host\r\n",
    'HEAD' => "HEAD /plain HTTP/1.1\r\n$host\r\n",
    'upload' => "POST /plain HTTP/1.1\r\n${host}Content-Length: 5\r\n\r\nabcde",
    'large upload' => "PUT /plain HTTP/1.1\r\n${host}Content-Length: 90000\r\n\r\n" . 'u' x 90_000,
    'chunked upload' => "POST /plain HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n"
        . "5\r\nabcde\r\n0\r\n\r\n",
    'chunked answer' => "GET /chunked HTTP/1.1\r\n$host\r\n",
    'HTTP/1.0' => "GET /plain HTTP/1.0\r\n$host\r\n",
    'HTTP/1.0, chunked answer' => "GET /chunked HTTP/1.0\r\n$host\r\n",
    'HTTP/1.0 without Host' => "GET /plain HTTP/1.0\r\n\r\n",
    'keep-alive' => "GET /plain HTTP/1.0\r\n${host}Connection: keep-alive\r\n\r\n",
    'unchanged' => "GET /unchanged HTTP/1.1\r\n$host\r\n",
    'empty' => "DELETE /empty HTTP/1.1\r\n$host\r\n",
    'missing' => "GET /missing HTTP/1.1\r\n$host\r\n",
    'broken' => "GET /broken HTTP/1.1\r\n$host\r\n",
    'refused' => "GET /refused HTTP/1.1\r\n$host\r\n",
    'gone' => "GET /gone HTTP/1.1\r\n$host\r\n",
    'other host' => "GET /plain HTTP/1.1\r\nHost: other.test:81\r\n\r\n",
    'absolute' => "GET http://www.example.test/plain HTTP/1.1\r\n$host\r\n",
    'expects' => "POST /plain HTTP/1.1\r\n${host}Expect: 100-continue\r\n"
        . "Content-Length: 5\r\n\r\nabcde",
    'malformed' => "GET /plain HTTP/1.1\r\n${host}X : y\r\n\r\n",
    'body malformed' => "POST /plain HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    'bad path' => "GET /%2e%2e%2fx HTTP/1.1\r\n$host\r\n",
);

behaviour 'each request has the same line in both lanes', @engine, sub {
    my ($t) = @_;
    my ($lanes) = proxied($t);
    my @requests = @REQUESTS;
    my $count = 0;
    while (my ($name, $bytes) = splice @requests, 0, 2) {
        for my $lane (qw(pipeline engine)) {
            my $client = $t->raw_client(port => $lanes->port($lane));
            $client->write($bytes);
            $client->read_response(method => $bytes =~ /^(\w+)/);
            $client->close;
        }
        my $lines = lines($t, $lanes, 2 * ++$count);
        compare($name, $lines->{engine}[-1], $lines->{pipeline}[-1], sizes($t),
            $name =~ /chunked answer/ ? ('%O' => 'sizes of chunks', '%S' => 'likewise') : (),
            $name =~ /body malformed/ ? ('%O' => 'framing of the page', '%S' => 'likewise',
                '%{Content-Length}o' => 'likewise') : ());
        is($lines->{'engine lane'}[-1], 'engine', "$name: served by the engine")
            if $name =~ /^(?:plain|query|HEAD|upload|chunked|unchanged)/;
    }
};

behaviour 'requests on one connection', @engine, sub {
    my ($t) = @_;
    my ($lanes) = proxied($t, '<Location /guarded>', 'LimitRequestBody 10', '</Location>');
    my @requests = map { "$_ HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabc" }
        'GET /1', 'PUT /2', 'POST /guarded', 'GET /4', 'GET /5';
    $requests[4] =~ s/Content/Connection: close\r\nContent/;
    for my $lane (qw(pipeline engine)) {
        my $client = $t->raw_client(port => $lanes->port($lane));
        for my $request (@requests) {
            $client->write($request);
            $client->read_response;
        }
        $client->close;
    }
    my $lines = lines($t, $lanes, 10);
    compare("request $_", $lines->{engine}[$_], $lines->{pipeline}[$_], sizes($t)) for 0 .. 4;
};

behaviour 'bytes of pipelined requests are counted once', lanes => ['engine'], sub {
    my ($t) = @_;
    my ($lanes) = proxied($t);
    my @requests = map {
        "GET /$_ HTTP/1.1\r\n${host}X-Pad: " . 'p' x (10 * $_) . "\r\n\r\n"
    } 1 .. 5;
    $requests[4] =~ s/X-Pad/Connection: close\r\nX-Pad/;
    my $client = $t->raw_client;
    $client->write(join '', @requests);
    my $answer = $client->read_eof;
    wait_until('the log', undef, sub { return $t->access_log == 5 });
    for (['%I', join '', @requests], ['%O', $answer]) {
        my ($item, $bytes) = @$_;
        my ($index) = grep { $ITEMS[$_] eq $item } 0 .. $#ITEMS;
        my $sum = 0;
        $sum += (split /\t/)[$index] for $t->access_log;
        is($sum, length $bytes, $item);
    }
};

behaviour 'fields that come more than once leave nothing behind', lanes => ['engine', 'engine-h2'],
    sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->access_format('%{X-A}i');
    $t->start;
    my @fields = map { ('X-A' => 'v' x 700) } 1 .. 40;
    my $ask = sub {
        my $client = $t->client;
        $client->get('/', @fields) for 1 .. shift;
    };
    $ask->(50);
    my $before = $t->memory->{rss};
    $ask->(75) for 1 .. 2;              # with all that is joined on the way to a line: 80 MB
    my $most = 16_000_000 * ($ENV{RPROXY_PRELOAD} || $ENV{RPROXY_VALGRIND} ? 3 : 1);
    cmp_ok($t->memory->{rss} - $before, '<', $most, 'memory');
    wait_until('the log', undef, sub { return $t->access_log >= 200 });
    is(length(($t->access_log)[-1]), 40 * 702 - 2, 'the line has them all');
};

behaviour 'clients that leave', @engine, sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        if ($head->target =~ /begun/) {
            $conn->respond(200, ['Content-Length' => 10]);
            $conn->write('begun');
        }
        $conn->notify('there');
        $conn->wait_closed;
    });
    my $lanes = RProxy::Lanes->configure($t, ['RProxyPass / ' . $up->url . '/']);
    $t->access_format(join '\t', @ITEMS);
    $t->start;
    my $count = 0;
    for my $target (qw(/waiting /begun)) {
        for my $lane (qw(pipeline engine)) {
            my $client = $t->raw_client(port => $lanes->port($lane));
            my $exchange = $client->begin('GET', $target);
            $up->wait_event('there');
            $exchange->head if $target eq '/begun';
            $client->reset;
            wait_until('the line', undef, sub { return $t->access_log == $count + 1 });
            $count++;
        }
        my $lines = lines($t, $lanes, $count);
        compare($target, $lines->{engine}[-1], $lines->{pipeline}[-1],
            (map { $_ => 'how much went before it left' } qw(%I %O %S %b %B)),
            '%X' => 'the pipeline does not say of all that they left',
            '%{Content-Length}o' => 'the pipeline has it though nothing was sent');
    }
};

behaviour 'tunnels', @engine, sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
    });
    my $lanes = RProxy::Lanes->configure($t, ['RProxyPass / ' . $up->url . '/']);
    $t->access_format(join '\t', @ITEMS);
    $t->start;
    for my $lane (qw(pipeline engine)) {
        my $socket = RProxy::WebSocket->client($t->raw_client(port => $lanes->port($lane)), '/ws');
        $socket->send_text('hello');
        is($socket->read_text, 'hello', "$lane: open");
        $socket->send_close(1000, 'bye');
        $socket->read_frame;
        $socket->stream->close;
    }
    my $lines = lines($t, $lanes, 2);
    compare('a WebSocket', $lines->{engine}[0], $lines->{pipeline}[0], sizes($t),
        '%{Connection}o' => 'removed again in the pipeline');
};

behaviour 'mod_status counts requests and bytes of the engine', lanes => ['engine'], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->reply_with(200, ['Content-Type' => 'text/plain'], 'x' x 5_000);
    $t->extra_modules('status');
    $t->server_config('ExtendedStatus on');
    $t->config('<Location /server-status>', 'SetHandler server-status', '</Location>',
        'RProxyPass /server-status !', 'RProxyPass / ' . $up->url . '/');
    $t->start;
    my $figure = sub {
        my ($name) = @_;
        my ($value) = $t->get('/server-status?auto')->body =~ /^\Q$name\E: (\d+)/m;
        return $value // 0;
    };
    my %before = map { $_ => $figure->($_) } 'Total Accesses', 'Total kBytes', 'RProxyRequests';
    my $client = $t->raw_client;
    $client->get('/x') for 1 .. 100;
    $client->close;
    is($figure->('RProxyRequests') - $before{RProxyRequests}, 100, 'RProxyRequests');
    is($figure->('RProxyActive'), 0, 'none is left running');
    cmp_ok($figure->('Total Accesses') - $before{'Total Accesses'}, '>=', 100, 'Total Accesses');
    cmp_ok($figure->('Total kBytes') - $before{'Total kBytes'}, '>=', 480, 'Total kBytes');
};

# Lines of a round go into a file together: 4 KiB at most, of four files at a time.
behaviour 'each of many logs has every line, whole', lanes => [qw(event engine engine-h2)], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->reply_with(200, [], 'x');
    my @logs = map { "$t->{directory}/logs/log$_" } 1 .. 6;
    $t->config((map { qq{CustomLog "$logs[$_]" "$_ %U"} } 0 .. 5), 'RProxyPass / ' . $up->url . '/');
    $t->start;
    my @clients = map { $t->client } 1 .. 12;
    my @targets;
    for my $round (1 .. 4) {
        my @exchanges;
        for my $number (0 .. $#clients) {
            push @targets, "/$round/$number/" . 'y' x (400 * $number);
            push @exchanges, $clients[$number]->begin('GET', $targets[-1]);
        }
        $_->response for @exchanges;
    }
    for my $log (0 .. 5) {
        my @lines;
        wait_until("all lines in log $log", undef, sub {
            open my $fh, '<', $logs[$log] or return 0;
            @lines = readline $fh;
            return @lines >= @targets;
        });
        is_deeply([sort @lines], [sort map { "$log $_\n" } @targets], "log $log");
    }
};

done_testing;
