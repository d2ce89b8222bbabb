#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A response that breaks off reaches the client as broken, an error before the head as 502 with its
# reason, and a connection in doubt is never used again.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

my $CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

# Bodies that break off. Each begins with "begun".
my %BODY = (
    length          => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun",
    in_chunk        => "${CHUNKED}a\r\nbegun",
    after_chunk     => "${CHUNKED}5\r\nbegun\r\n",
    before_crlf     => "${CHUNKED}5\r\nbegun",
    in_size         => "${CHUNKED}5\r\nbegun\r\n1",
    after_last      => "${CHUNKED}5\r\nbegun\r\n0\r\n",
    in_trailers     => "${CHUNKED}5\r\nbegun\r\n0\r\nX-Sum: 1\r\n",
    bad_size        => "${CHUNKED}5\r\nbegun\r\nxyz\r\nmore\r\n0\r\n\r\n",
    huge_size       => "${CHUNKED}5\r\nbegun\r\nfffffffffffffffff\r\nmore\r\n0\r\n\r\n",
    no_crlf         => "${CHUNKED}5\r\nbegunXX0\r\n\r\n",
    bare_lf         => "${CHUNKED}5\r\nbegun\n0\r\n\r\n",
    framing_trailer => "${CHUNKED}5\r\nbegun\r\n0\r\nContent-Length: 5\r\n\r\n",
);

# Those that are wrong at once: over HTTP/2 the stream may end before its head was sent.
my $WRONG = qr/^(?:bad_size|huge_size|no_crlf|bare_lf|framing_trailer)$/i;

# Serves bytes of %$table by target, then ends the connection; an upper case target resets it.
sub breaking_upstream {
    my ($t, $table, %options) = @_;
    return $t->upstream(%options, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $name = substr $request->target, 1;
            if ($name eq 'fine') {
                $conn->respond(200, [], 'fine');
                next;
            }
            $conn->write($table->{ lc $name });
            # An end that overtakes what was sent would be another case.
            $conn->wait_for($name);
            $conn->reset if $name =~ /[A-Z]/;
            return;
        }
    });
}

sub is_broken {
    my ($t, $client, $exchange, $name) = @_;
    my $response = $exchange->response;
    ok(!$response->complete, "$name: seen as broken");
    if (!$t->is_h2 || $name !~ /$WRONG/) {
        is($response->status, 200, 'begun');
        like($response->body, qr/^begun/, 'what came was passed on');
    }
    return is($client->get('/fine')->body, 'fine', 'other streams go on') if $t->is_h2;
    isnt($client->wait_closed, undef, 'the connection is cut');
    return;
}

behaviour 'a body that breaks off reaches the client as broken', sub {
    my ($t) = @_;
    my $up = breaking_upstream($t, \%BODY);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $name (map { $_, uc $_ } sort keys %BODY) {
        my $client = $t->client;
        my $exchange = $client->begin('GET', "/$name", {});
        is($exchange->read_exact(5), 'begun', "$name: sent on as it comes")
            if $name !~ /$WRONG/;
        $up->signal($name);
        is_broken($t, $client, $exchange, $name);
        $client->close;
    }
    my (%ended, $again);
    for my $request ($up->requests) {
        $again = $request->target if $ended{ $request->connection };
        $ended{ $request->connection } = 1 if $request->target ne '/fine';
    }
    is($again, undef, 'no such upstream connection was used again');
};

behaviour 'over TLS, an end without close_notify is a broken response', sub {
    my ($t) = @_;
    my $body = 'x' x 100_000;
    my $up = $t->upstream(tls => 1, sub {
        my ($conn) = @_;
        my $request = $conn->read_request;
        $conn->write("HTTP/1.1 200 OK\r\n\r\n$body");
        $request->target eq '/cut' ? $conn->cut : $conn->close;
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyTLS ca=' . $t->certs->ca_file);
    $t->start;
    my $response = $t->get('/close');
    ok($response->complete, 'with close_notify it is complete');
    is(length $response->body, 100_000, 'whole');
    $response = $t->get('/cut');
    is($response->status, 200, 'without: begun');
    ok(!$response->complete, 'broken');
};

behaviour 'a reset of a response that ends with its connection is a broken response', sub {
    my ($t) = @_;
    my $up = breaking_upstream($t, { reset => "HTTP/1.1 200 OK\r\n\r\nbegun" });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my $exchange = $client->begin('GET', '/RESET', {});
    is($exchange->read_exact(5), 'begun', 'sent on as it comes');
    $up->signal('RESET');
    is_broken($t, $client, $exchange, 'reset');
};

behaviour 'an HTTP/1.0 client sees it by a reset where no length tells',
    except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = breaking_upstream($t, \%BODY);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $name ('after_chunk', 'length') {
        my $client = $t->raw_client;
        $client->write("GET /$name HTTP/1.0\r\nHost: www.example.test\r\n\r\n");
        my $head = $client->read_head;
        is($head->status, 200, "$name: begun");
        is($client->read_exact(5), 'begun', 'sent on as it comes');
        $up->signal($name);
        my $closed = $client->wait_closed;
        is($head->header('Content-Length'), $name eq 'length' ? 10 : undef, 'length');
        isnt($closed, 'eof', 'not a clean end') if $name ne 'length';
    }
};

my $HEAD = 'HTTP/1.1 200 OK';
my %EARLY = (
    nothing     => ['', 'connection_terminated'],
    part        => ['HTTP/1.1 200 OK', 'http_response_incomplete'],
    field       => ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", 'http_response_incomplete'],
    interim     => ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 'http_response_incomplete'],
    garbage     => ["\x16\x03\x01 what is this\r\n\r\n", 'http_protocol_error'],
    two_lengths => ["$HEAD\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        'http_protocol_error'],
    coding_too  => ["$HEAD\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        'http_protocol_error'],
    huge_head   => [join('', "$HEAD\r\n", map({ "X-$_: " . 'x' x 2_000 . "\r\n" } 1 .. 60), "\r\n"),
        'http_protocol_error'],
);

behaviour 'an error before the head is a 502 that says why', sub {
    my ($t) = @_;
    my $up = breaking_upstream($t, { map { $_ => $EARLY{$_}[0] } keys %EARLY });
    $t->access_format('%r %>s %{rproxy-error}e');
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $name (sort keys %EARLY) {
        # httpd gives a connection of mod_http2 to its MPM, which at times does not hear of the next
        # request on it, whatever serves them, until KeepAliveTimeout ends it.
        $client = $t->client if $t->has_mod_http2;
        my $exchange = $client->begin('GET', "/$name", {});
        $up->signal($name);
        my $response = $exchange->response;
        is($response->status, 502, $name);
        ok($response->complete, 'complete');
        like($response->header('Proxy-Status'), qr/; *error=$EARLY{$name}[1]$/, 'Proxy-Status');
        unlike($response->body, qr/127\.0\.0\.1/, 'nothing of what is inside');
        $t->wait_access_log(qr{ /$name HTTP/\S+ 502 [a-z]+(?:-[a-z]+)*$});
    }
    $client = $t->client if $t->has_mod_http2;
    is($client->get('/fine')->body, 'fine', 'the client connection goes on');
};

behaviour 'bytes behind a response end the upstream connection', sub {
    my ($t) = @_;
    my %extra = (
        length  => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbegun",
        chunked => "${CHUNKED}5\r\nbegun\r\n0\r\n\r\n",
        none    => "HTTP/1.1 204 No Content\r\n\r\n",
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my ($name, $when) = split m{/}, substr $request->target, 1;
            my $smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
            $conn->write($extra{$name} . ($when eq 'with' ? $smuggled : ''));
            next if $when eq 'with';
            $conn->wait_for($request->target);
            $conn->write($smuggled);
            $conn->notify('sent');
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->mpm_config(StartServers => 1, MinSpareServers => 1, MaxSpareServers => 1, ServerLimit => 1,
        MaxRequestWorkers => 1) if $t->mpm eq 'prefork';
    $t->start;
    my $client = $t->client;
    for my $when ('with', 'later') {
        for my $name (sort keys %extra) {
            my $response = $client->get("/$name/$when");
            is($response->status, $name eq 'none' ? 204 : 200, "$name, $when");
            is($response->body, $name eq 'none' ? '' : 'begun', 'its body, and no more');
            ok($response->complete, 'complete');
            if ($when eq 'later') {
                $up->signal("/$name/$when");
                $up->wait_event('sent');
            }
        }
    }
    is(scalar $up->connections, 6, 'each over a connection of its own');
};

done_testing;
