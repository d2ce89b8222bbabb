#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Upstreams behind Unix sockets do all that others do, and only the configuration names sockets.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Digest::MD5 qw(md5_hex);
use IO::Socket::UNIX;
use RProxy::Tunnel;
use RProxy::WebSocket;
use Socket qw(AF_UNIX SOCK_NONBLOCK SOCK_STREAM pack_sockaddr_un);

use constant {
    MIB          => 1_048_576,
    LONGEST_PATH => 107,        # sun_path without its final NUL
};

# An upstream on a socket that says what it is and what it was asked.
sub named {
    my ($t, $name, %args) = @_;
    my $up = $t->upstream(unix => 1, %args);
    $up->on_request(sub {
        my ($request, $conn) = @_;
        return [200, ['X-Name' => $name, 'X-Target' => $request->target,
            'X-Host' => $request->header('Host'), 'X-Connection' => $conn->number],
            $request->body];
    });
    return $up;
}

sub is_from {
    my ($response, $name, $target) = @_;
    is($response->status, 200, "$name answers");
    is($response->header('X-Name'), $name, 'it is this one');
    is($response->header('X-Target'), $target, "target $target");
    return;
}

# A guard: the engine has no HTTP/2.
behaviour 'requests reach the socket of their route', except => ['engine-h2'], sub {
    my ($t) = @_;
    my $one = named($t, 'one');
    my $two = named($t, 'two');
    $t->access_format('%U %{rproxy-upstream}e');
    $t->config(
        'RProxyPass /base/ ' . $one->url . '/app/v1/',
        'RProxyPass /port/ unix:' . $one->path . '|http://app.test:8080/',
        'RProxyPass /kept/ ' . $one->url . '/',
        'RProxyPass /two/ ' . $two->url . '/',
        'RProxyPassMatch ^/match/([a-z]+)$ unix:' . $two->path . '|http://localhost/m/$1',
        'RProxyPass / unix:' . $one->path . '|http://localhost',
        '<LocationMatch ^/(base|port)/>', 'RProxyPreserveHost off', '</LocationMatch>',
    );
    $t->start;
    my $client = $t->client;
    my $response = $client->get('/path?query');
    is_from($response, 'one', '/path?query');
    is($response->header('X-Host'), $t->host, 'Host is kept');
    $response = $client->get('/base/x%20y?a=b');
    is_from($response, 'one', '/app/v1/x%20y?a=b');
    is($response->header('X-Host'), 'localhost', 'Host of the URL where it is not kept');
    $response = $client->get('/port/');
    is_from($response, 'one', '/');
    is($response->header('X-Host'), 'app.test:8080', 'with its port');
    is_from($client->get('/kept/'), 'one', '/');
    is_from($client->get('/two/x'), 'two', '/x');
    is_from($client->get('/match/abc'), 'two', '/m/abc');
    my ($path, $other) = ($one->path, $two->path);
    ok($t->wait_access_log(qr{^/base/x y \Q$path\E$}), 'the log names the socket');
    ok($t->wait_access_log(qr{^/two/x \Q$other\E$}), 'and the other');
};

behaviour 'connections are kept and bodies travel both ways', sub {
    my ($t) = @_;
    my $up = named($t, 'one', record => 0);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my $body = join '', map { chr($_ * 7 % 256) x 1_013 } 1 .. 2 * MIB / 1_013;
    for my $chunked (0, 1) {
        my $response = $client->request('PUT', '/', { body => $body, chunked => $chunked });
        is($response->status, 200, 'answered');
        is(md5_hex($response->body), md5_hex($body), 'whole' . ($chunked && ', chunked'));
    }
    $client->get("/$_") for 1 .. 10;
    cmp_ok(scalar $up->connections, '<=', 2, 'few connections') or note(explain $up->connections);
};

behaviour 'a path may be as long as the system allows', sub {
    my ($t) = @_;
    my $directory = $t->directory . '/';
    my $longest = $directory . 's' x (LONGEST_PATH - length $directory);
    my $up = $t->upstream(unix => $longest);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    is($t->get('/')->status, 200, LONGEST_PATH . ' bytes');
};

behaviour 'a path that is too long or relative stops the start', lanes => ['event'], sub {
    my ($t) = @_;
    my $directory = $t->directory . '/';
    my $too_long = $directory . 's' x (LONGEST_PATH + 1 - length $directory);
    for my $case (["unix:$too_long|http://localhost/", qr/allows 107 bytes/],
        ['unix:run/socket|http://localhost/', qr/absolute path/],
        ['unix:|http://localhost/', qr/absolute path/],
        ['unix:/|http://localhost/', qr/absolute path/],
        ['unix:/run/socket', qr{as in unix:/run/app\.sock\|http://localhost/}],
        ['unix:/run/socket|', qr/target/]) {
        my ($target, $message) = @$case;
        $t->clear_config;
        $t->config("RProxyPass / $target");
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0, $target);
        like($output, $message, 'says why');
    }
};

behaviour 'a socket that cannot be used is a 502 until it can', sub {
    my ($t) = @_;
    my $up = named($t, 'one');
    my $locked = named($t, 'locked');
    my $file = $t->file('no-socket', 'a file');
    chmod 0777, $file;
    my $dead = $t->directory . '/dead';
    IO::Socket::UNIX->new(Local => $dead, Listen => 1) or die "$dead: $!\n";
    chmod 0777, $dead;
    $t->access_format('%U %>s %{rproxy-error}e');
    $t->config('RProxyPass /up/ ' . $up->url . '/', 'RProxyPass /locked/ ' . $locked->url . '/',
        "RProxyPass /file/ unix:$file|http://localhost/",
        "RProxyPass /dead/ unix:$dead|http://localhost/",
        'RProxyPass /nowhere/ unix:' . $t->directory . '/x/y|http://localhost/',
        $t->rule_for_the_rest);
    $t->start;
    $up->refuse;
    chmod 0, $locked->path;
    for my $case (['up', 'connection_refused'], ['nowhere', 'connection_refused'],
        ['file', 'connection_refused'], ['dead', 'connection_refused'],
        ['locked', 'destination_unavailable']) {
        my ($name, $error) = @$case;
        for my $method ('GET', 'POST') {
            my $response = $t->request($method, "/$name/",
                { body => $method eq 'POST' ? 'hello' : undef });
            is($response->status, 502, "$name, $method: 502");
            like($response->header('Proxy-Status'), qr/; error=$error$/, $error);
        }
    }
    ok($t->wait_log(qr/RP0105: .*Permission denied/), 'the log has the reason of the system');
    $up->start;
    chmod 0777, $locked->path;
    is_from($t->get('/up/'), 'one', '/');
    is_from($t->get('/locked/'), 'locked', '/');
};

behaviour 'a full backlog is waited for', sub {
    my ($t) = @_;
    my $count = 6;
    my $up = $t->upstream(unix => 1, backlog => 1);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    $up->stop;
    my @tasks = map { $t->background(sub { return $t->get('/')->status }) } 1 .. $count;
    # What fits waits in the backlog, the others for it.
    wait_until('a full backlog', undef, sub {
        socket my $probe, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0 or die "socket: $!\n";
        return !connect($probe, pack_sockaddr_un($up->path)) && $!{EAGAIN};
    });
    $up->start;
    is_deeply([map { $_->result } @tasks], [(200) x $count], 'all are answered');
};

behaviour 'a WebSocket and TLS over a socket', sub {
    my ($t) = @_;
    my $up = $t->upstream(unix => 1, sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
        $conn->notify('closed');
    });
    my $tls = $t->upstream(unix => 1, tls => { names => ['localhost'] });
    $t->server_config(RProxy::Tunnel->directives($t));
    $t->config('RProxyPass /tls/ ' . $tls->url . '/', 'RProxyPass / ' . $up->url . '/',
        'RProxyTLS ca=' . $t->certs->ca_file);
    $t->start;
    is($t->get('/tls/')->status, 200, 'TLS');
    is(($tls->connections)[0]{sni}, 'localhost', 'with the name of the URL');
    my $tunnel = RProxy::Tunnel->open($t, '/chat');
    my $socket = RProxy::WebSocket->over($tunnel);
    $socket->send_text('hello');
    is($socket->read_text, 'hello', 'a message and back');
    $socket->send_close;
    is(($socket->read_frame)[0], RProxy::WebSocket::CLOSE, 'closed');
    $up->wait_event('closed');
    $tunnel->close;
};

# CVE-2021-40438 and its kin.
behaviour 'no text of a client names a socket', sub {
    my ($t) = @_;
    my $secret = named($t, 'secret');
    my $up = $t->upstream;
    $up->reply_with(200, ['X-Name' => 'open'], 'fine');
    my $attack = 'unix:' . $secret->path . '|http://localhost/';
    my $encoded = $attack =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger;
    $t->config('RProxyPassMatch ^/match/(.*)$ ' . $up->url . '/$1',
        'RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $target ("/?$attack", "/?x=$attack", '/?' . 'A' x 4_096 . "$attack", "/$attack",
        "/match/$attack", "/match/?$attack", "/$encoded", "/match/$encoded") {
        # What is no valid target may be refused instead.
        my $response = $t->get($target);
        like($response->status, qr/^(?:200|400|404)$/, substr $target, 0, 60);
        is($response->header('X-Name') // 'open', 'open', 'not there');
    }
    for my $headers ([Host => $attack], ['X-Forwarded-Host' => $attack]) {
        my $response = $t->get('/', @$headers);
        is($response->header('X-Name') // 'open', 'open', "not by $headers->[0]");
    }
    is(scalar $secret->connections, 0, 'nobody came to the socket');
};

done_testing;
