#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The files of examples/ work as they are: each is included unchanged, with its variables defined in
# front of it, and serves requests.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Platform;
use RProxy::Ports;
use RProxy::WebSocket;

my $examples = RProxy::Platform::source_directory() . '/examples';
my %tested;

sub slurp {
    my ($file) = @_;
    open my $fh, '<', $file or die "$file: $!\n";
    local $/;
    return scalar readline $fh;
}

# An upstream that says its name and the target it was sent.
sub named {
    my ($t, $name, @options) = @_;
    my $up = $t->upstream(@options);
    $up->on_request(sub {
        my ($request) = @_;
        return [200, ['Content-Type' => 'text/plain'], "$name " . $request->target];
    });
    return $up;
}

# Starts httpd with the example; returns a sub that gets a target: (status, body).
sub start_example {
    my ($t, $name, %variables) = @_;
    my $port = RProxy::Ports->reserve;
    $t->server_config("Define PORT $port",
        (map { "Define $_ \"$variables{$_}\"" } sort keys %variables),
        "Include \"$examples/$name\"");
    $t->start;
    return sub {
        my ($target, @headers) = @_;
        my $response = $t->request('GET', $target,
            { client => { port => $port }, headers => \@headers });
        return ($response->status, $response->body);
    };
}

sub address { return '127.0.0.1:' . $_[0]->port }

# example 'x.conf', 'what it shows', sub { ... };
sub example {
    my ($file, $text, $code) = @_;
    $tested{$file} = 1;
    behaviour "$file: $text", lanes => ['event', 'worker', 'engine'], $code;
    return;
}

example 'basic.conf', 'one backend, one exempt path', sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(302, [Location => 'http://www.example.test/there'], '');
    my $get = start_example($t, 'basic.conf', BACKEND1 => address($up));
    is(($get->('/here?x=1'))[0], 302);
    is($up->request->target, '/here?x=1');
    isnt(($get->('/server-status'))[0], 302, 'answered by the server itself');
    is(scalar(my @requests = $up->requests), 1);
};

example 'websockets.conf', 'WebSockets without a directive', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $websocket = RProxy::WebSocket->server($conn) or return;
        $websocket->echo;
    });
    my $port = RProxy::Ports->reserve;
    $t->server_config("Define PORT $port", 'Define BACKEND1 ' . address($up),
        "Include \"$examples/websockets.conf\"");
    $t->start;
    my $websocket = RProxy::WebSocket->client($t->raw_client(port => $port), '/chat');
    $websocket->send_text('hello');
    is($websocket->read_text, 'hello');
    $websocket->send_close;
    is(($websocket->read_frame)[0], RProxy::WebSocket::CLOSE());

    $up->reply_with(200, [], 'plain');
    my $response = $t->request('GET', '/api/x', {
        client  => { port => $port },
        headers => [Upgrade => 'websocket', Connection => 'Upgrade'],
    });
    is($response->status, 200);
    my ($last) = reverse $up->requests;
    is($last->header('Upgrade'), undef, 'no upgrade is asked for where it is off');
};

example 'microservices.conf', 'longest path, expressions, rewriting', sub {
    my ($t) = @_;
    my @ups = map { named($t, "service$_") } 1 .. 3;
    my $get = start_example($t, 'microservices.conf',
        map { ("BACKEND$_" => address($ups[$_ - 1])) } 1 .. 3);
    my @cases = (
        ['/'                 => 'service1 /'],
        ['/users'            => 'service2 /'],
        ['/users/7'          => 'service2 /7'],
        ['/users-old'        => 'service1 /users-old'],
        ['/users/reports/q1' => 'service3 /v2/reports/q1'],
        ['/users/by-number/7' => 'service2 /id/7'],
        ['/orders/v2/a/b'    => 'service3 /orders-v2/a/b'],
    );
    for my $case (@cases) {
        is_deeply([$get->($case->[0])], [200, $case->[1]], $case->[0]);
    }
    unlike(($get->('/server-status'))[1], qr/^service/, 'exempt');
};

example 'canary.conf', 'testers always get the new version, others by shares', sub {
    my ($t) = @_;
    my ($stable, $new) = (named($t, 'stable'), named($t, 'new'));
    my $get = start_example($t, 'canary.conf',
        BACKEND1 => address($stable), BACKEND2 => address($new));
    is(($get->('/', Cookie => 'a=b; canary=always'))[1], 'new /') for 1 .. 5;
    my %seen;
    for (1 .. 60) {
        my ($status, $body) = $get->('/', Cookie => 'canary=alwaysnot');
        is($status, 200) if $status != 200;
        $seen{ (split / /, $body)[0] }++;
    }
    # 60 requests of which each has 95 % to go there: fewer than 40 has less than 1 in 10^16.
    cmp_ok($seen{stable} // 0, '>=', 40, 'most go to the stable version');
};

example 'htaccess.conf', 'a .htaccess file sends its directory to an allowed target', sub {
    my ($t) = @_;
    my $up = named($t, 'application');
    for my $file ('index.html', 'app/.htaccess') {
        $t->file("site/$file", slurp("$examples/htaccess/$file"));
    }
    $t->file('site/evil/.htaccess', "RProxyPass http://127.0.0.1:9/\n");
    my $get = start_example($t, 'htaccess.conf',
        BACKEND1 => address($up), SITE => $t->directory . '/site');
    my ($status, $body) = $get->('/index.html');
    is($status, 200);
    like($body, qr/served as it is/, 'files are served as files');
    is_deeply([$get->('/app/x?y')], [200, 'application /x?y']);
    is(($get->('/evil/'))[0], 403, 'another target is refused');
    like($t->error_log, qr/RP0010/);
};

example 'tls-upstream.conf', 'a private CA and a client certificate', sub {
    my ($t) = @_;
    my $up = named($t, 'secure',
        tls => { names => ['backend.example.test'], client_ca => 1 });
    my $client = $t->certs->client('proxy');
    my $get = start_example($t, 'tls-upstream.conf',
        BACKEND1 => address($up), CA => $t->certs->ca_file,
        CLIENT_CERT => $client->{cert}, CLIENT_KEY => $client->{key});
    is_deeply([$get->('/x')], [200, 'secure /x']);
    my ($connection) = $up->connections;
    is($connection->{sni}, 'backend.example.test', 'SNI');
    like($connection->{client_cert}, qr/proxy/, 'client certificate');
};

example 'timeouts-retries.conf', 'repeated where safe, an error page in the end', sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(503, [], 'busy');
    my $get = start_example($t, 'timeouts-retries.conf', BACKEND1 => address($up));
    is_deeply([$get->('/page')],
        [503, "The application is busy. Please try again in a minute.\n"]);
    is(scalar(my @all = $up->requests), 3, 'three attempts');
    $get->('/orders/7');
    is(scalar(@all = $up->requests), 4, 'one attempt where it is off');
};

example 'migration-from-mod_proxy.conf', 'what the lines of mod_proxy did', sub {
    my ($t) = @_;
    my @ups = map { named($t, "backend$_") } 1 .. 2;
    my $get = start_example($t, 'migration-from-mod_proxy.conf',
        map { ("BACKEND$_" => address($ups[$_ - 1])) } 1 .. 2);
    is_deeply([$get->('/app/x')], [200, 'backend1 /x']);
    is_deeply([$get->('/chat/room')], [200, 'backend2 /chat/room']);
    is_deeply([$get->('/img/a/b.png')], [200, 'backend2 /images/a/b.png']);
    is_deeply([$get->('/search?q=1')], [200, 'backend1 /search?q=1']);
    unlike(($get->('/static/x'))[1], qr/^backend/, 'exempt');
};

my @files = map { m{([^/]+)$} } glob "$examples/*.conf";
is_deeply([sort keys %tested], [sort @files], 'every example has its test');

done_testing;
