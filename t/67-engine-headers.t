#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Header and RequestHeader with constant values: the engine does what mod_headers does in the
# pipeline. Each behaviour has the same expectations in both lanes.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Tunnel;
use RProxy::WebSocket;

my @both = (lanes => [qw(event engine engine-tls engine-h2)]);

# With guards, or an ErrorDocument, the engine has no HTTP/2.
my @guarded = (lanes => [qw(event engine engine-tls)]);

# Starts with a route of all requests and these lines of the virtual host behind it. Options:
# server => [...], items => [of the log].
sub started {
    my ($t, $lines, %options) = @_;
    my $up = $t->upstream;
    $t->extra_modules('headers', 'setenvif');
    $t->access_format(join '|', '%{rproxy-lane}e', '%U', @{ $options{items} // [] });
    $t->server_config(@{ $options{server} // [] });
    $t->config('RProxyPass / ' . $up->url . '/', @$lines);
    $t->start;
    return $up;
}

sub in_location { my ($path, @lines) = @_; return ("<Location $path>", @lines, '</Location>') }

# What the log says of the last request for a path: its items, and that the lane was the right one.
sub logged {
    my ($t, $path, $lane) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $t->wait_access_log(qr/^\w+\|\Q$path\E(?:\||$)/);
    my ($line) = reverse grep { /^\w+\|\Q$path\E(?:\||$)/ } $t->access_log;
    my ($got, undef, @items) = split /\|/, $line, -1;
    is($got, $t->is_engine ? $lane // 'engine' : 'pipeline', "$path: lane");
    return @items;
}

sub all_of {
    my ($message, %expected) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is_deeply([$message->headers_all($_)], $expected{$_}, $_) for sort keys %expected;
    return;
}

# ---- responses --------------------------------------------------------------------------------

behaviour 'Header changes what the upstream has sent', @both, sub {
    my ($t) = @_;
    my $up = started($t, ['Header set X-Set new', 'Header set X-Set-None: "a  b"',
        'Header onsuccess add X-Add 1', 'Header add X-Add 2', 'Header append X-Append "2, 3"',
        'Header append X-Append-None 1', 'Header append X-Append-None 2',
        'Header append X-Append-Two c', 'Header unset x-unset', 'Header unset X-Powered-By',
        'Header setifempty X-Empty new', 'Header setifempty X-Empty-None new',
        'Header set X-Value "100%% \\\\ \\t \\x 50%"', 'Header set X-Nothing ""',
        'Header append Cache-Control private', 'Header unset ETag', 'Header unset Last-Modified',
        'Header add Set-Cookie c=3', 'Header set Content-Encoding identity',
        'Header set Location /elsewhere', 'Header set Content-Language de']);
    $up->reply_with(200, ['X-Set' => 1, 'x-set' => 2, 'X-Add' => 0, 'X-Append' => 1,
        'X-Append-Two' => 'a', 'X-Append-Two' => 'b', 'X-Unset' => 1, 'X-Other' => 1,
        'X-Unset' => 2, 'X-Powered-By' => 'it', 'X-Empty' => '', ETag => '"e"',
        'Last-Modified' => 'Tue, 15 Nov 1994 08:12:31 GMT', 'Cache-Control' => 'max-age=1',
        'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2', Location => '/there'], 'body');
    my $response = $t->get('/x');
    is($response->body, 'body');
    all_of($response, 'X-Set' => ['new'], 'X-Set-None' => ['a  b'], 'X-Add' => [0, 1, 2],
        'X-Append' => ['1, 2, 3'], 'X-Append-None' => ['1, 2'], 'X-Append-Two' => ['a, c', 'b'],
        'X-Unset' => [], 'X-Powered-By' => [], 'X-Other' => [1], 'X-Empty' => [''],
        'X-Empty-None' => ['new'], 'X-Value' => ["100% \\ \t \\x 50%"], 'X-Nothing' => [''],
        'Cache-Control' => ['max-age=1, private'], ETag => [], 'Last-Modified' => [],
        'Set-Cookie' => ['a=1', 'b=2', 'c=3'], 'Content-Encoding' => ['identity'],
        Location => ['/elsewhere'], 'Content-Language' => ['de'], 'Content-Length' => [4]);
    logged($t, '/x');
};

behaviour 'Header always has a table of its own, in front of what the upstream has sent', @both,
    sub {
    my ($t) = @_;
    my $up = started($t, ['Header always set X-Always 1', 'Header always unset X-Upstream',
        'Header always append X-Append b', 'Header always append X-Append c',
        'Header always setifempty X-Append d', 'Header always add X-Gone 1',
        'Header always unset X-Gone', 'Header always add X-Twice 1', 'Header always add X-Twice 2',
        'Header set X-Both success', 'Header always set X-Both always',
        'Header always set X-None 1', 'Header unset X-None']);
    $up->reply_with(200, ['X-Always' => 0, 'X-Upstream' => 1, 'X-Append' => 'a', 'X-Both' => 0,
        'X-None' => 0], 'body');
    all_of($t->get('/x'), 'X-Always' => [1, 0], 'X-Upstream' => [1], 'X-Append' => ['b, c', 'a'],
        'X-Gone' => [], 'X-Twice' => [1, 2], 'X-Both' => ['always', 'success'], 'X-None' => [1]);
    logged($t, '/x');
};

behaviour 'rules of the main server come first, then the virtual host\'s, then the sections\'',
    @both, sub {
    my ($t) = @_;
    my $up = started($t, [in_location('/', 'Header append X-Order own-1', 'Header unset X-Second'),
        in_location('/app', 'RProxyPass http://127.0.0.1:1/', 'Header append X-Order app'),
        in_location('/', 'Header append X-Order own-2', 'RequestHeader append X-In own'),
        'Header append X-Order host', 'Header set X-Second 2', 'RequestHeader append X-In host'],
        server => ['Header append X-Order main', in_location('/', 'Header append X-Order section'),
            'RequestHeader append X-In main']);
    $up->reply_with(200, [], '');
    my $response = $t->get('/x');
    all_of($response, 'X-Order' => ['main, host, section, own-1, own-2'], 'X-Second' => []);
    is($up->request->header('X-In'), 'main, host, own');
    logged($t, '/x');
};

behaviour 'rules hold for responses of any status, but not for interim ones', @both, sub {
    my ($t) = @_;
    my $up = started($t, ['Header set X-Set 1', 'Header always set X-Always 1',
        'Header unset X-Unset']);
    $up->on_connection(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my ($status) = $request->target =~ m{/(\d+)};
            $conn->write("HTTP/1.1 103 Early Hints\r\nX-Unset: 1\r\n\r\n");
            $conn->respond($status, ['X-Unset' => 1, ETag => '"e"'],
                $status =~ /[23]04/ || $request->method eq 'HEAD' ? () : 'body');
        }
    });
    my $client = $t->client;
    for (['GET', 200], ['HEAD', 200], ['GET', 204], ['GET', 304], ['GET', 302], ['GET', 404],
        ['GET', 503]) {
        my ($method, $status) = @$_;
        my $response = ($status == 503 ? $t->client : $client)->request($method, "/$status");
        is($response->status, $status, "$method, $status");
        all_of($response, 'X-Set' => [1], 'X-Always' => [1], 'X-Unset' => [], ETag => ['"e"']);
        my ($interim) = @{ $response->interim };
        all_of($interim, 'X-Set' => [], 'X-Always' => [], 'X-Unset' => [1]);
        logged($t, "/$status");
    }
};

behaviour 'a switch to another protocol is not changed', @both, sub {
    my ($t) = @_;
    my $up = started($t, ['Header set X-Set 1', 'Header always set X-Always 1',
        'Header unset X-Unset', 'RequestHeader set X-In 1'],
        items => ['%{X-Set}o', '%{X-Always}o']);
    $up->on_connection(sub {
        my ($conn) = @_;
        my $socket = RProxy::WebSocket->server($conn, headers => ['X-Unset' => 1]);
        $conn->notify('in: ' . ($socket->request->header('X-In') // 'none'));
        $socket->echo;
    });
    my $tunnel = RProxy::Tunnel->open($t, '/ws');
    my $socket = RProxy::WebSocket->over($tunnel);
    all_of($tunnel->head, 'X-Set' => [], 'X-Always' => [], 'X-Unset' => [1]);
    $up->wait_event('in: 1');
    $socket->send_text('hello');
    is($socket->read_text, 'hello');
    $socket->send_close(1000, 'bye');
    $socket->read_frame;
    $tunnel->close;
    is_deeply([logged($t, '/ws')], ['-', '-'], 'the log');
};

behaviour 'answers of the proxy itself have the fields of always, once', @guarded, sub {
    my ($t) = @_;
    my $dead = $t->refused_port;
    my $up = started($t, ['Header set X-Set 1', 'Header always add X-Always 1',
        'RequestHeader add X-In 1', 'RProxyErrorOverride 404', 'ErrorDocument 404 "own page"',
        in_location('/dead', "RProxyPass http://127.0.0.1:$dead/")], items => ['%{X-In}i']);
    $up->reply_with(404, ['X-Up' => 1, 'Retry-After' => 5], 'page');
    my $response = $t->get('/dead');
    is($response->status, 502);
    all_of($response, 'X-Set' => [], 'X-Always' => [1]);
    is_deeply([logged($t, '/dead')], [1], 'the log');
    $response = $t->get('/replaced', 'X-In' => 0);
    is($response->body, 'own page');
    all_of($response, 'X-Set' => [], 'X-Always' => [1], 'X-Up' => [], 'Retry-After' => [5]);
    my @in = $up->request->headers_all('X-In');
    is(join(', ', @in), '0, 1', 'RequestHeader, once');
    is_deeply([logged($t, '/replaced')], [0], 'the log');
};

# ---- requests ---------------------------------------------------------------------------------

behaviour 'RequestHeader changes what the upstream gets', @both, sub {
    my ($t) = @_;
    my $up = started($t, ['RequestHeader set X-Set new', 'RequestHeader set X-Set-None new',
        'RequestHeader add X-Add 1', 'RequestHeader add X-Add-None 1',
        'RequestHeader add X-Add-None 2', 'RequestHeader append X-Append c',
        'RequestHeader append X-Append-None 1', 'RequestHeader unset X-Unset',
        'RequestHeader setifempty X-Empty new', 'RequestHeader unset Accept-Encoding',
        'RequestHeader unset Cookie', 'RequestHeader set Authorization "Basic Zm9v"',
        'RequestHeader set Content-Type text/x-own', 'RequestHeader append X-Mixed 3',
        'RequestHeader add X-Mixed 4', 'RequestHeader append X-Mixed 5']);
    $up->echo;
    my $response = $t->request('POST', '/x', { body => 'text', headers => ['X-Set' => 1,
        'x-set' => 2, 'X-Add' => 0, 'X-Append' => 'a', 'X-Other' => 1, 'X-Append' => 'b',
        'X-Unset' => 1, 'X-Unset' => 2, 'X-Empty' => 'full', 'Accept-Encoding' => 'gzip',
        Cookie => 'a=b', 'Content-Type' => 'text/plain', 'X-Mixed' => 1, 'X-Mixed' => 2] });
    is($response->body, 'text');
    all_of($up->request, 'X-Set' => ['new'], 'X-Set-None' => ['new'], 'X-Add' => [0, 1],
        'X-Add-None' => [1, 2], 'X-Append' => ['a, b, c'], 'X-Append-None' => [1],
        'X-Unset' => [], 'X-Empty' => ['full'], 'Accept-Encoding' => [], Cookie => [],
        Authorization => ['Basic Zm9v'], 'Content-Type' => ['text/x-own'],
        'X-Mixed' => ['1, 2, 3, 5', 4], 'X-Other' => [1]);
    logged($t, '/x');
};

behaviour 'the proxy has the last word on what it says about the client', @both, sub {
    my ($t) = @_;
    my @rules = ('RequestHeader set X-Forwarded-For 9.9.9.9',
        'RequestHeader set X-Forwarded-Proto gopher', 'RequestHeader set Forwarded for=9.9.9.9',
        'RequestHeader set X-Request-ID mine', 'RequestHeader set Via other',
        'RequestHeader set Proxy-Authorization secret', 'RequestHeader set Proxy http://evil/');
    my $up = started($t, ['RProxyForwarded both', @rules]);
    $t->get('/x');
    my $request = $up->request;
    all_of($request, 'X-Forwarded-For' => ['127.0.0.1'], 'X-Forwarded-Proto' => [$t->scheme],
        'Proxy-Authorization' => [], Proxy => []);
    unlike($request->header('Forwarded'), qr/9\.9/);
    isnt($request->header('X-Request-ID'), 'mine');
    is(scalar $request->headers_all('Via'), 2);
    logged($t, '/x');
};

behaviour 'where the peer is trusted, what RequestHeader says of the client counts', @both, sub {
    my ($t) = @_;
    my $up = started($t, ['RProxyTrustedProxy 127.0.0.1',
        'RequestHeader set X-Forwarded-For 9.9.9.9', 'RequestHeader set X-Forwarded-Proto gopher',
        'RequestHeader set X-Request-ID mine']);
    $t->get('/x', 'X-Request-ID' => 'theirs');
    all_of($up->request, 'X-Forwarded-For' => ['9.9.9.9, 127.0.0.1'],
        'X-Forwarded-Proto' => ['gopher'], 'X-Request-ID' => ['mine']);
    logged($t, '/x');
};

# ---- log --------------------------------------------------------------------------------------

behaviour 'the access log shows fields as the rules have made them', @both, sub {
    my ($t) = @_;
    my @items = ((map { "%{$_}i" } qw(X-Set X-Add X-New X-Append X-Unset X-Two User-Agent)),
        '%{secret}C', (map { "%{$_}o" } qw(X-Set X-Add X-Always X-Unset Set-Cookie)));
    my $up = started($t, ['RequestHeader set X-Set new', 'RequestHeader add X-Add 1',
        'RequestHeader add X-New 1', 'RequestHeader add X-New 2', 'RequestHeader append X-Append c',
        'RequestHeader unset X-Unset', 'RequestHeader set User-Agent proxy',
        'RequestHeader set Cookie secret=none', 'Header set X-Set new', 'Header add X-Add 1',
        'Header always set X-Always 1', 'Header unset X-Unset', 'Header add Set-Cookie c=3'],
        items => \@items);
    $up->reply_with(200, ['X-Set' => 0, 'X-Add' => 0, 'X-Always' => 0, 'X-Unset' => 0,
        'Set-Cookie' => 'a=1'], '');
    my $client = $t->client;
    for my $path ('/x', '/y') {
        $client->get($path, 'X-Set' => 0, 'X-Add' => 'a', 'X-Add' => 'b', 'X-Append' => 'a',
            'X-Append' => 'b', 'X-Unset' => 0, 'X-Two' => 1, 'X-Two' => 2,
            Cookie => 'secret=x', 'User-Agent' => 'client');
        is_deeply([logged($t, $path)], ['new', 'a, b', 1, 'a, b, c', '-', '1, 2', 'proxy', 'none',
            'new', 0, 1, '-', 'a=1, c=3'], 'items');
    }
};

# ---- which requests ---------------------------------------------------------------------------

behaviour 'guards look at what the client has sent', @guarded, sub {
    my ($t) = @_;
    my $up = started($t, ['BrowserMatch ^Old seen', 'RequestHeader set User-Agent Old',
        in_location('/own', 'Header set X-Seen yes env=seen')]);
    $t->get('/new', 'User-Agent' => 'New/1.0');
    is($up->request->header('User-Agent'), 'Old');
    logged($t, '/new');
    is($t->get('/own', 'User-Agent' => 'New/1.0')->header('X-Seen'), undef);
    is($t->get('/own/x', 'User-Agent' => 'Old/1.0')->header('X-Seen'), 'yes');
    $t->get('/old', 'User-Agent' => 'Old/1.0');
    logged($t, '/old', 'pipeline');
};

behaviour 'rules of sections hold for exactly the requests in them', @guarded, sub {
    my ($t) = @_;
    my $other = $t->upstream;
    my $up = started($t, [in_location('/part', 'Header set X-Part path'),
        in_location('/*/wild', 'Header set X-Part wild'),
        '<LocationMatch "\.php$">', 'Header set X-Part regex', '</LocationMatch>',
        in_location('/app/', 'RProxyPass ' . $other->url . '/', 'Header set X-Part app'),
        in_location('/app/deep', 'Header append X-Part deep'),
        in_location('/whole', 'RProxyPass ' . $other->url . '/', 'Header set X-Part whole')]);
    for (['/', undef], ['/part', 'path', 'pipeline'], ['/part/x', 'path', 'pipeline'],
        ['/partly', undef], ['/a/wild', 'wild', 'pipeline'], ['/x.php', 'regex', 'pipeline'],
        ['/app/x', 'app'], ['/app', undef, 'pipeline'], ['/app/deep', 'app, deep', 'pipeline'],
        ['/whole', 'whole'], ['/whole/x', 'whole'], ['/wholesale', undef]) {
        my ($path, $part, $lane) = @$_;
        is($t->get($path)->header('X-Part'), $part, $path);
        logged($t, $path, $lane);
    }
};

behaviour 'virtual hosts keep their rules apart, on one connection', @both, sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $t->extra_modules('headers');
    $t->server_config('Header append X-Host main');
    $t->config('RProxyPass / ' . $up->url . '/', 'Header append X-Host first');
    $t->vhost('second.example.test', ['RProxyPass / ' . $up->url . '/',
        'Header append X-Host second', 'RequestHeader set X-In second']);
    $t->vhost('bare.example.test', ['RProxyPass / ' . $up->url . '/']);
    $t->start;
    my $client = $t->is_tls ? undef : $t->client;    # mod_ssl wants the name of the handshake
    for (['second.example.test', 'main, second', 'second'], [$t->host, 'main, first', undef],
        ['bare.example.test', 'main', undef]) {
        my ($host, $expected, $in) = @$_;
        next if $t->is_tls && $host ne $t->host;
        my $response = ($client // $t->client)->get('/', Host => $host);
        is($response->header('X-Host'), $expected, $host);
        is($up->request->header('X-In'), $in, '  request');
    }
};

done_testing;
