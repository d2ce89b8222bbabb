#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Upstreams with IPv6 addresses, and names that have both kinds: whichever does not answer, the
# other one does, and soon (RFC 8305).
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use IO::Socket::IP;
use RProxy::DNS;
use RProxy::Tunnel;
use RProxy::Wait qw(now seconds);
use RProxy::WebSocket;
use Socket qw(SOCK_STREAM);

use constant SOON => 4;     # seconds; the limit of connecting is far above

plan(skip_all => 'this machine has no ::1')
    unless IO::Socket::IP->new(LocalHost => '::1', Proto => 'udp');

sub six {
    my ($t, %args) = @_;
    my $up = $t->upstream(ipv6 => 1, %args);
    $up->on_request(sub {
        my ($request, $conn) = @_;
        return [200, ['X-Host' => $request->header('Host'), 'X-Connection' => $conn->number,
            'X-Target' => $request->target], $request->body];
    });
    return $up;
}

behaviour 'an address in brackets is an upstream', sub {
    my ($t) = @_;
    my $up = six($t);
    my $port = $up->port;
    $t->access_format('%U %>s %{rproxy-upstream}e');
    $t->config("RProxyPass /base http://[::1]:$port/app", "RProxyPass /long/ "
            . "http://[0:0:0:0:0:0:0:1]:$port/", "RProxyPass / http://[::1]:$port/",
        '<Location /base>', 'RProxyPreserveHost off', '</Location>');
    $t->start;
    my $client = $t->client;
    my $response = $client->request('PUT', '/x?y', { body => 'hello' });
    is($response->status, 200, 'answered');
    is($response->body, 'hello', 'with its body');
    is($response->header('X-Target'), '/x?y', 'its target');
    is($response->header('X-Host'), $t->host, 'and the Host that is kept');
    my $base = $client->get('/base/x');
    is($base->header('X-Target'), '/app/x', 'with a base');
    is($base->header('X-Host'), "[::1]:$port", 'Host in brackets where it is not kept');
    is($client->get('/long/')->status, 200, 'written at length');
    is($client->get('/')->header('X-Connection'), 1, 'connections are used again');
    ok($t->wait_access_log(qr{^/base/x 200 \[::1\]:$port$}), 'the log writes it in brackets');
};

behaviour 'Location of an upstream with an IPv6 address is mapped back', sub {
    my ($t) = @_;
    my $up = six($t);
    my $port = $up->port;
    $up->on_request(sub {
        return [302, [Location => "http://[::1]:$port/app/next?x=[1]"]];
    });
    $t->config("RProxyPass /base/ http://[::1]:$port/app/", $t->rule_for_the_rest);
    $t->start;
    my $location = $t->get('/base/')->header('Location') // '';
    like($location, qr{^(?:https?://[^/\[]+)?/base/next\?x=\[1\]$}, 'to the path of the client');
};

behaviour 'TLS to an IPv6 address', sub {
    my ($t) = @_;
    my %up = map { $_ => six($t, tls => { names => [$_] }) } 'IP:::1', 'IP:::2', '::1';
    my %path = ('IP:::1' => '/good/', 'IP:::2' => '/other/', '::1' => '/text/');
    $t->config('RProxyTLS ca=' . $t->certs->ca_file, $t->rule_for_the_rest,
        map { "RProxyPass $path{$_} " . $up{$_}->url . '/' } sort keys %up);
    $t->start;
    is($t->get('/good/')->status, 200, 'verified by its address');
    is(($up{'IP:::1'}->connections)[0]{sni}, undef, 'which is not sent as a name');
    for my $path ('/other/', '/text/') {
        my $response = $t->get($path);
        is($response->status, 502, "$path: 502");
        like($response->header('Proxy-Status'), qr/tls_certificate_error/, 'says why');
    }
};

behaviour 'a WebSocket to an IPv6 address', sub {
    my ($t) = @_;
    my $up = $t->upstream(ipv6 => 1, sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
    });
    $t->server_config(RProxy::Tunnel->directives($t));
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $tunnel = RProxy::Tunnel->open($t, '/chat');
    my $socket = RProxy::WebSocket->over($tunnel);
    $socket->send_text('hello');
    is($socket->read_text, 'hello', 'a message and back');
    $tunnel->close;
};

behaviour 'a refusing IPv6 address is a 502 like any other', sub {
    my ($t) = @_;
    my $port = $t->refused_port;
    $t->config("RProxyPass / http://[::1]:$port/");
    $t->start;
    my $response = $t->get('/');
    is($response->status, 502, 'answered with 502');
    like($response->header('Proxy-Status'), qr/error=connection_refused$/, 'says why');
    ok($t->wait_log(qr/RP0103: .*\[::1\]:$port/), 'the log has the address');
};

# A listener that takes no connection any more: attempts to connect hang. To be kept as long.
sub hanging_listener {
    my ($host, $port) = @_;
    my @held = IO::Socket::IP->new(LocalHost => $host, LocalPort => $port, Listen => 1,
        Type => SOCK_STREAM, ReuseAddr => 1) // die "cannot listen: $@\n";
    while (@held < 100) {
        my $socket = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port,
            Type => SOCK_STREAM, Blocking => 0) // die "cannot connect: $@\n";
        $socket->connect;
        push @held, $socket;
        my $bits = '';
        vec($bits, $socket->fileno, 1) = 1;
        return @held unless select undef, $bits, undef, 0.3;
    }
    die "the accept queue never fills\n";
}

behaviour 'a name with both kinds of addresses is as good as its better one', sub {
    my ($t) = @_;
    my $dns = RProxy::DNS->start($t);
    my %up = (four => $t->upstream, six => $t->upstream(ipv6 => 1),
        hanging_six => $t->upstream, hanging_four => $t->upstream(ipv6 => 1));
    my @held = (hanging_listener('::1', $up{hanging_six}->port),
        hanging_listener('127.0.0.1', $up{hanging_four}->port));
    $dns->set('both.test', A => ['127.0.0.1'], AAAA => ['::1']);
    $t->access_format('%U %>s %{rproxy-attempts}e %{rproxy-upstream}e');
    $t->server_config('RProxyResolver ' . $dns->address);
    for my $name (sort keys %up) {
        $up{$name}->reply_with(200, [], $name);
        $t->config("RProxyPass /$name/ http://both.test:" . $up{$name}->port . '/');
    }
    $t->config('RProxyTimeout connect=30s', 'RProxyKeepAlive max=0', 'RProxyRetry tries=1',
        $t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    for my $name (sort keys %up) {
        for my $round (1 .. 3) {
            my $began = now();
            my $response = $client->get("/$name/");
            is($response->status, 200, "$name: answered");
            is($response->body, $name, 'by the one that lives');
            cmp_ok(now() - $began, '<', seconds(SOON), 'soon');
        }
    }
    $client->close;
    for my $name (sort keys %up) {
        my $address = $name =~ /^(?:four|hanging_six)$/ ? '127.0.0.1' : '[::1]';
        my $lines = wait_until('lines of the log', undef, sub {
            my @lines = grep { m{^/$name/} } $t->access_log;
            return @lines == 3 && \@lines;
        });
        is(scalar(grep { m{ 200 1 \Q$address\E:\d+$} } @$lines), 3,
            "$name: each in one attempt, by the address in the log");
    }
};

behaviour 'a name of the hosts file with a dead address answers at once', sub {
    my ($t) = @_;
    # Most machines have localhost as both 127.0.0.1 and ::1.
    my $up = $t->upstream;
    $t->config('RProxyPass / http://localhost:' . $up->port . '/');
    $t->start;
    my $began = now();
    is($t->get('/')->status, 200, 'answered');
    cmp_ok(now() - $began, '<', seconds(SOON), 'at once');
};

done_testing;
