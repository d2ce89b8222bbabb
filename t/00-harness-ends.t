#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The harness tests its two ends against each other, without httpd in between.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::HPACK;
use RProxy::Ports;

# A client that is connected to the upstream directly.
sub direct {
    my ($up, %options) = @_;
    $up->start;
    return RProxy::Client->connect(port => $up->port, host_header => 'direct.test', %options);
}

behaviour 'ports are reserved once and refuse connections', lanes => ['event'], sub {
    my ($t) = @_;
    my %ports = map { RProxy::Ports->reserve => 1 } 1 .. 50;
    is(scalar keys %ports, 50, 'fifty different ports');
    RProxy::Ports->release(keys %ports);
    ok(!eval { RProxy::Client->connect(port => $t->refused_port) }, 'refused');
    like($@, qr/refused/i);
};

behaviour 'requests arrive byte for byte and are recorded', lanes => ['event'], sub {
    my ($t) = @_;
    my $client = direct(my $up = $t->upstream->echo);
    my $response = $client->request('POST', '/a%2Fb?c', {
        headers => ['X-A' => 1, 'x-b' => 'two', 'X-A' => 3], body => 'hello' });
    is($response->status, 200);
    is($response->reason, 'OK');
    is($response->version, '1.1');
    is($response->body, 'hello');
    is($response->header('x-target'), '/a%2Fb?c');
    ok($response->complete);
    my $request = $up->request;
    is($request->raw_head, "POST /a%2Fb?c HTTP/1.1\r\nHost: direct.test\r\nX-A: 1\r\nx-b: two\r\n"
            . "X-A: 3\r\nContent-Length: 5\r\n\r\n", 'head');
    is_deeply([$request->headers_all('x-a')], [1, 3], 'headers_all');
    is_deeply([$request->header_names], [qw(host x-a x-b x-a content-length)], 'order of names');
    is($request->body, 'hello');
    is(($up->connections)[0]{raw}, $request->raw_head . 'hello', 'bytes of the connection');
};

behaviour 'keep-alive, pipelining, chunked coding, trailers and HEAD', lanes => ['event'], sub {
    my ($t) = @_;
    my $client = direct(my $up = $t->upstream->echo);
    $client->write("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    is($client->read_response->header('X-Target'), '/1');
    is($client->read_response(method => 'HEAD')->header('X-Target'), '/2');
    my @pieces = ('one', 'two' x 10_000, 'three');
    my $text = join '', @pieces;
    my $response = $client->request('PUT', '/3', {
        body => sub { return shift @pieces }, trailers => ['X-Sum' => 'abc'] });
    is($response->body, $text, 'chunked body echoed');
    my @requests = $up->requests;
    is_deeply([map { $_->target } @requests], ['/1', '/2', '/3']);
    is_deeply([map { $_->connection } @requests], [1, 1, 1], 'one connection');
    is($requests[2]->body, $text, 'chunked body recorded');
    is($requests[2]->trailer('x-sum'), 'abc', 'trailer recorded');
};

behaviour 'responses by hand: interim, chunks, trailers, until close', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        $conn->read_head;
        $conn->write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        $conn->respond('200 Fine', ['Transfer-Encoding' => 'chunked', Trailer => 'X-T']);
        $conn->write_chunk('ab');
        $conn->write_chunk('cde');
        $conn->write_last_chunk('X-T' => 'end');
        $conn->read_head;
        $conn->write("HTTP/1.0 200 OK\r\n\r\nuntil close");
    });
    my $client = direct($up);
    my $response = $client->get('/');
    is($response->interim->[0]->status, 103);
    is($response->interim->[0]->header('Link'), '</a>');
    is($response->reason, 'Fine');
    is($response->body, 'abcde');
    is($response->trailer('x-t'), 'end');
    is($response->framing, 'chunked');
    $response = $client->get('/');
    is($response->body, 'until close');
    is($response->framing, 'close');
    ok($response->complete);
};

behaviour 'broken responses are not complete', lanes => ['event'], sub {
    my ($t) = @_;
    my %broken = (
        length => ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", qr/7 bytes missing/],
        chunk  => ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", qr/3 bytes/],
        last   => ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", qr/before a/],
        nohex  => ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", qr/bad chunk/],
        head   => ["HTTP/1.1 200 OK\r\nContent", qr/before a response/],
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_head;
        $conn->write($broken{ substr $request->target, 1 }[0]);
    });
    for my $how (sort keys %broken) {
        my $response = direct($up)->get("/$how");
        ok(!$response->complete, $how);
        like($response->error, $broken{$how}[1]);
    }
};

behaviour 'both sides see how the other one ends', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $how = $conn->read_until(qr/\n/);
        return $conn->reset if $how eq "reset me\n";
        $conn->notify($conn->wait_closed);
        $conn->write('still here') if $how eq "half\n";
    });
    my $client = direct($up);
    $client->write("reset me\n");
    is($client->wait_closed, 'reset', 'the upstream sends RST');
    $client = direct($up);
    $client->write("half\n");
    $client->half_close;
    ok($up->wait_event('eof'), 'half close arrives');
    is($client->read_eof, 'still here');
    is($client->closed, 'eof');
    $client = direct($up);
    $client->write("then reset\n");
    $client->reset;
    ok($up->wait_event('reset'), 'the client sends RST');
    $client = direct($up);
    $client->write("then close\n");
    $client->close;
    ok($up->wait_event('eof'), 'the client closes');
    is_deeply([map { $_->{closed} } $up->connections], [undef, 'eof', 'reset', 'eof'], 'recorded');
};

behaviour 'events travel both ways', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        for my $part (1 .. 3) {
            $conn->wait_for('go');
            $conn->write("part $part\n");
            $conn->notify('sent');
        }
    });
    my $client = direct($up);
    for my $part (1 .. 3) {
        ok($client->quiet_for(0.05), 'nothing before the signal');
        $up->signal('go');
        $up->wait_event('sent');
        is($client->read_until(qr/\n/), "part $part\n");
    }
    is($client->read_eof, '');
    ok(!eval { $up->wait_event('never', 0.05) });
    like($@, qr/timed out after [\d.]+ s waiting for event 'never'/);
};

behaviour 'a wait that fails says what was awaited and what came', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub { my ($conn) = @_; $conn->write("a\x01"); $conn->wait_closed });
    my $client = direct($up);
    1 while length $client->buffer < 2 && $client->fill;
    ok(!eval { $client->read_exact(5, 0.1) });
    like($@, qr/client: timed out waiting for 5 bytes; unread so far: 2 bytes "a\\x01"/);
};

behaviour 'Unix sockets, IPv6, refusing and coming back', lanes => ['event'], sub {
    my ($t) = @_;
    my $unix = $t->upstream(unix => 1)->start;
    is(RProxy::Client->connect(unix => $unix->path, host_header => 'u')->get('/')->status, 200);
    my $ipv6 = $t->upstream(ipv6 => 1);
    is(direct($ipv6, host => '::1')->get('/')->status, 200);
    like($ipv6->url, qr{^http://\[::1\]:\d+$});
    my $up = $t->upstream;
    is(direct($up)->get('/')->status, 200);
    $up->refuse;
    ok(!eval { RProxy::Client->connect(port => $up->port) }, 'refused');
    $up->reply_with(503, [], 'later');
    is(direct($up)->get('/')->status, 503, 'back on the same port, with another handler');
    is(scalar(my @all = $up->connections), 2, 'connections are counted on');
};

behaviour 'a crowd of connections is served side by side', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream->crowd(delay => 0.2, tunnel => 1,
        reply => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    my @clients = map { direct($up) } 1 .. 500;
    my $begin = time;
    $_->write("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\nearly ") for @clients;
    my $open = grep { $_->read_response->status == 101 && $_->read_exact(6) eq 'early ' } @clients;
    is($open, 500, 'all are open');
    cmp_ok(time - $begin, '<', 60, 'at the same time');
    is($up->count('request'), 500);
    $_->write('echo') for @clients[0, 250, 499];
    is(join(' ', map { $_->read_exact(4) } @clients[0, 250, 499]), 'echo echo echo');
    $up->crowd(reply => "HTTP/1.1 204 No Content\r\n\r\n");
    is(direct($up)->get('/')->status, 204, 'another reply');
};

behaviour 'TLS upstream: SNI, client certificate, session reuse, truncation', lanes => ['event'],
    sub {
    my ($t) = @_;
    my $up = $t->upstream(tls => { names => ['up.test'], client_optional => 1 }, sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->write("HTTP/1.1 200 OK\r\n\r\nsome");
        $conn->cut if $request->target eq '/cut';
    });
    my %tls = (SSL_ca_file => $t->certs->ca_file, SSL_hostname => 'up.test',
        SSL_verifycn_name => 'up.test', SSL_verifycn_scheme => 'http');
    my $cached = IO::Socket::SSL::SSL_Context->new(%tls, SSL_session_cache_size => 5);
    my $mine = $t->certs->client('me');
    my $response = direct($up, tls => {
        %tls, SSL_cert_file => $mine->{cert}, SSL_key_file => $mine->{key} })->get('/');
    is($response->body, 'some');
    ok($response->complete, 'ended with close_notify');
    $response = direct($up, tls => {%tls})->get('/cut');
    is($response->body, 'some');
    ok(!$response->complete, 'ended without close_notify');
    direct($up, tls => { %tls, SSL_reuse_ctx => $cached, SSL_session_key => 'k' })->get('/')
        for 1 .. 2;
    my @seen = $up->connections;
    is($seen[0]{sni}, 'up.test');
    like($seen[0]{client_cert}, qr/CN=me/);
    is($seen[1]{client_cert}, undef);
    is_deeply([map { $_->{session_reused} } @seen[2, 3]], [0, 1]);
    for my $wrong ([names => ['other.test']], [certificate =>
            $t->certs->server(['up.test'], expired => 1)], [certificate =>
            $t->certs->server(['up.test'], untrusted => 1)]) {
        my $bad = $t->upstream(tls => {@$wrong});
        ok(!eval { direct($bad, tls => {%tls}) }, "not trusted: $wrong->[0]");
        like($@, qr/verif\w+ failed/);
        ok($bad->wait_event('tls-error'));
    }
};

behaviour 'HTTP/2 by hand: interim, CONTINUATION, padding, trailers', lanes => ['event'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $peer = bless { stream => $conn }, 'RProxy::H2';
        $conn->read_until(qr/SM\r\n\r\n/);
        $peer->send_frame(RProxy::H2::SETTINGS, 0, 0, pack 'nN', 5, 20_000);
        my ($type, $id, $payload) = (-1);
        ($type, undef, $id, $payload) = $peer->read_frame until $type == RProxy::H2::HEADERS;
        my %request = map { @$_ } @{ RProxy::HPACK->new->decode($payload) };
        my @blocks = map { RProxy::HPACK->encode(@$_) } [[':status', 103], ['link', '</a>']],
            [[':status', 200], ['x-path', $request{':path'}]], [['x-sum', 42]];
        $peer->send_frame(RProxy::H2::HEADERS, RProxy::H2::END_HEADERS, $id, $blocks[0]);
        $peer->send_frame(RProxy::H2::HEADERS, RProxy::H2::PADDED, $id,
            "\3" . substr($blocks[1], 0, 5) . 'pad');
        $peer->send_frame(RProxy::H2::CONTINUATION, RProxy::H2::END_HEADERS, $id,
            substr $blocks[1], 5);
        $peer->send_frame(RProxy::H2::DATA, RProxy::H2::PADDED, $id, "\4textpads");
        $peer->send_frame(RProxy::H2::HEADERS,
            RProxy::H2::END_HEADERS | RProxy::H2::END_STREAM, $id, $blocks[2]);
        $conn->wait_closed;
    });
    my $client = RProxy::H2->new(direct($up), host_header => 'h2.test');
    my $response = $client->get('/by/hand');
    is($response->status, 200);
    is($response->interim->[0]->header('Link'), '</a>');
    is($response->header('X-Path'), '/by/hand');
    is($response->body, 'text');
    is($response->trailer('x-sum'), 42);
    ok($response->complete);
};

behaviour 'HPACK decodes what it must and refuses the rest', lanes => ['event'], sub {
    # RFC 7541 C.4 and C.6.1: requests and a response with Huffman coding and the dynamic table
    my $decoder = RProxy::HPACK->new;
    is_deeply($decoder->decode(pack 'H*', '828684418cf1e3c2e5f23a6ba0ab90f4ff'),
        [[':method', 'GET'], [':scheme', 'http'], [':path', '/'],
            [':authority', 'www.example.com']]);
    is_deeply($decoder->decode(pack 'H*', '828684be5886a8eb10649cbf')->[4],
        ['cache-control', 'no-cache']);
    my $response = '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff'
        . '6e919d29ad171863c78f0b97c8e9ae82ae43d3';
    is_deeply(RProxy::HPACK->new->decode(pack 'H*', $response),
        [[':status', '302'], ['cache-control', 'private'],
            ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'], ['location', 'https://www.example.com']]);
    my @fields = (['x', 'y' x 300], ['empty', '']);
    is_deeply($decoder->decode(RProxy::HPACK->encode(@fields)), \@fields);
    ok(!eval { $decoder->decode(pack 'H*', $_); 1 }, "refused: $_") for qw(ff80 40 00018 00fe);
};

done_testing;
