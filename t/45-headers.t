#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Fields of requests and responses: what travels, what stays, what is added, and that a client can
# neither forge nor remove what the proxy says.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# Nothing of this depends on whether a process or a thread waits: prefork stands for both.
without_lanes qw(worker);

# Connection-specific fields of a request exist in HTTP/1.1 only.
my @http1 = (except => ['h2', 'engine-h2']);

sub started {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    my $url = $up->url;
    $t->config("RProxyPass / $url/", map { s/\bUP\b/$url/gr } @lines);
    $t->start;
    return $up;
}

# The request as the upstream got it.
sub sent {
    my ($t, $up, @headers) = @_;
    my $response = $t->get('/', @headers);
    is($response->status, 200);
    return $up->request;
}

behaviour 'hop-by-hop fields of a request stay', @http1, sub {
    my ($t) = @_;
    my $up = started($t);
    my $request = sent($t, $up,
        Connection => 'close, X-Hop', Connection => 'x-other', 'X-Hop' => 1, 'X-Other' => 1,
        'Keep-Alive' => 'timeout=5', 'Proxy-Connection' => 'keep-alive', 'Proxy' => 'http://evil/',
        'Proxy-Authorization' => 'Basic Zm9v', 'Proxy-Authenticate' => 'x', Trailer => 'X-T',
        TE => 'gzip', Upgrade => 'h2c', 'HTTP2-Settings' => 'AAMAAABkAARAAAAA', 'X-End' => 'end');
    is($request->header($_), undef, "$_ stays") for 'Connection', 'X-Hop', 'X-Other', 'Keep-Alive',
        'Proxy-Connection', 'Proxy', 'Proxy-Authorization', 'Proxy-Authenticate', 'Trailer', 'TE',
        'Upgrade', 'HTTP2-Settings';
    is($request->header('X-End'), 'end', 'others travel');
    $request = sent($t, $up, TE => 'trailers, gzip;q=0.5', Connection => 'TE');
    is($request->header('TE'), 'trailers', 'TE: trailers is our own word, too');
    is($request->header('Connection'), 'TE');
};

behaviour 'a Connection option removes neither framing, Host nor what the proxy adds', @http1, sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyForwarded both');
    $up->echo;
    my @names = qw(Host Content-Length Content-Type X-Forwarded-For X-Forwarded-Proto
        X-Forwarded-Host X-Forwarded-Port Forwarded Via X-Request-ID Transfer-Encoding close);
    for my $name (@names) {
        my $response = $t->request('POST', '/', { body => 'text', headers => [
            Connection => $name, 'Content-Type' => 'text/x-own'] });
        is($response->status, 200, "Connection: $name");
        is($response->body, 'text');
        my $request = $up->request;
        ok(defined $request->header($_), "  $_ is there") for grep { !/^Tr|^close/ } @names;
        is($request->header('X-Forwarded-For'), '127.0.0.1');
        is($request->header('Content-Type'), 'text/x-own');
    }
};

behaviour 'hop-by-hop fields of a response stay', sub {
    my ($t) = @_;
    my $up = started($t);
    $up->reply_with(200, [Connection => 'X-Hop, close', 'X-Hop' => 1, 'Keep-Alive' => 'timeout=5',
        'Proxy-Connection' => 'close', 'Proxy-Authenticate' => 'Basic realm="x"', Upgrade => 'h2c',
        'X-End' => 'end', TE => 'x', 'X-Accel-Buffering' => 'no', Trailer => 'X-T'], 'text');
    my $response = $t->get('/');
    is($response->header($_), undef, "$_ stays") for 'X-Hop', 'Proxy-Connection',
        'Proxy-Authenticate', 'Upgrade', 'TE', 'X-Accel-Buffering', 'Trailer';
    unlike($response->header('Keep-Alive') // '', qr/timeout=5$/);
    unlike($response->header('Connection') // '', qr/x-hop/i);
    is($response->header('X-End'), 'end');
    is($response->body, 'text');
};

behaviour 'the client is described, and what it says of itself is replaced', sub {
    my ($t) = @_;
    my $up = started($t);
    my @forged = ('X-Forwarded-For' => '6.6.6.6', 'X-Forwarded-For' => '7.7.7.7',
        'X-Forwarded-Proto' => 'gopher', 'X-Forwarded-Host' => 'evil.test',
        'X-Forwarded-Port' => '1', Forwarded => 'for=6.6.6.6', 'X-Request-ID' => 'forged');
    my %expected = ('X-Forwarded-For' => '127.0.0.1', 'X-Forwarded-Proto' => $t->scheme,
        'X-Forwarded-Host' => $t->host, 'X-Forwarded-Port' => $t->port);
    for my $headers ([], \@forged) {
        my $request = sent($t, $up, @$headers);
        is_deeply([$request->headers_all($_)], [$expected{$_}], $_) for sort keys %expected;
        is($request->header('Forwarded'), undef, 'no Forwarded');
        unlike($request->header('X-Request-ID'), qr/forged/);
        like($request->header('X-Request-ID'), qr/^[0-9a-f]{32}$/);
        unlike($request->raw_head, qr/6\.6\.6\.6|evil\.test|gopher|7\.7\.7\.7/);
    }
    my %ids = map { sent($t, $up)->header('X-Request-ID') => 1 } 1 .. 3;
    is(scalar(keys %ids), 3, 'each request has its own id');
};

behaviour 'a trusted proxy is believed', sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyTrustedProxy 10.0.0.0/8 127.0.0.1', 'RProxyForwarded both');
    my $request = sent($t, $up, 'X-Forwarded-For' => '6.6.6.6', 'X-Forwarded-For' => '7.7.7.7',
        'X-Forwarded-Proto' => 'https', 'X-Forwarded-Host' => 'front.test',
        'X-Forwarded-Port' => '8443', Forwarded => 'for=6.6.6.6;proto=https',
        'X-Request-ID' => 'from-the-front');
    is_deeply([$request->headers_all('X-Forwarded-For')], ['6.6.6.6, 7.7.7.7, 127.0.0.1']);
    is($request->header('X-Forwarded-Proto'), 'https');
    is($request->header('X-Forwarded-Host'), 'front.test');
    is($request->header('X-Forwarded-Port'), '8443');
    is($request->header('X-Request-ID'), 'from-the-front');
    like($request->header('Forwarded'), qr/^for=6\.6\.6\.6;proto=https, for=127\.0\.0\.1;/);
    $request = sent($t, $up);
    is($request->header('X-Forwarded-For'), '127.0.0.1', 'and one that says nothing is described');
    is($request->header('X-Forwarded-Proto'), $t->scheme);
};

behaviour 'RProxyTrustedProxy names others', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyTrustedProxy 10.0.0.0/8 127.0.0.2 ::1');
    is(sent($t, $up, 'X-Forwarded-For' => '6.6.6.6')->header('X-Forwarded-For'), '127.0.0.1');
};

my %modes = (
    x       => [1, 0],
    rfc7239 => [0, 1],
    both    => [1, 1],
    off     => [0, 0],
);
for my $mode (sort keys %modes) {
    behaviour "RProxyForwarded $mode",
        lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
        my ($t) = @_;
        my $up = started($t, "RProxyForwarded $mode");
        my $request = sent($t, $up, 'X-Forwarded-For' => '6.6.6.6', Forwarded => 'for=6.6.6.6',
            'X-Forwarded-Proto' => 'x', 'X-Forwarded-Host' => 'x', 'X-Forwarded-Port' => 'x');
        my ($x, $rfc) = @{ $modes{$mode} };
        is($request->header('X-Forwarded-For'), $x ? '127.0.0.1' : undef);
        is($request->header('X-Forwarded-Proto'), $x ? $t->scheme : undef);
        is($request->header('X-Forwarded-Host'), $x ? $t->host : undef);
        is($request->header('X-Forwarded-Port'), $x ? $t->port : undef);
        my $scheme = $t->scheme;
        if ($rfc) {
            my %parts = map { /^(\w+)=(.*)$/ } split /;/, $request->header('Forwarded');
            is($parts{for}, '127.0.0.1');
            is($parts{proto}, $scheme);
            is($parts{host} =~ tr/"//dr, $t->host);
        }
        else {
            is($request->header('Forwarded'), undef);
        }
    };
}

behaviour 'Host is the client\'s, or the target\'s with RProxyPreserveHost off', sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyPass /off UP/off', '<Location /off>', 'RProxyPreserveHost off',
        '</Location>');
    my $name = $t->host . ':' . $t->port;
    is($t->request('GET', '/on', { host => $name })->status, 200);
    is_deeply([$up->request->headers_all('Host')], [$name]);
    is($up->request->header('X-Forwarded-Host'), $name);
    is($t->request('GET', '/off', { host => $name })->status, 200);
    is_deeply([$up->request->headers_all('Host')], ['127.0.0.1:' . $up->port]);
    is($up->request->header('X-Forwarded-Host'), $name);
};

# Over TLS mod_ssl insists on a Host that agrees with SNI.
behaviour 'a request without Host gets the target\'s',
    except => [qw(tls h2 engine-tls engine-h2)], sub {
    my ($t) = @_;
    my $up = started($t);
    my $client = $t->raw_client;
    $client->write("GET / HTTP/1.0\r\n\r\n");
    is($client->read_response->status, 200);
    is_deeply([$up->request->headers_all('Host')], ['127.0.0.1:' . $up->port]);
    is($up->request->header('X-Forwarded-Host'), undef);
};

behaviour 'Via names the proxy, behind others', sub {
    my ($t) = @_;
    my $up = started($t);
    my $host = $t->host;
    like(sent($t, $up)->header('Via'), qr/^(?:1\.1|2(?:\.0)?) \Q$host\E$/);
    my @via = sent($t, $up, Via => '1.0 front')->headers_all('Via');
    like(join(', ', @via), qr/^1\.0 front, (?:1\.1|2(?:\.0)?) \Q$host\E$/);
};

behaviour 'other request fields travel as they are, repeated ones in order', sub {
    my ($t) = @_;
    my $up = started($t);
    my @fields = (Accept => 'text/html;q=0.8, */*', Cookie => 'a=b; c="d e"', 'X-Empty' => '',
        'X-Many' => '1', 'X-Many' => '2', 'X-Many' => '3', 'X-Bytes' => "\xc3\xa4\xff",
        Authorization => 'Bearer abc', 'User-Agent' => 'test/1', Range => 'bytes=0-1',
        'If-None-Match' => 'W/"x"', 'Accept-Encoding' => 'gzip, br', 'X-Tab' => "a\tb",
        Origin => 'https://x.test', Expect => undef);
    splice @fields, -2;
    my $request = sent($t, $up, @fields);
    while (my ($name, $value) = splice @fields, 0, 2) {
        next if $name eq 'X-Many';
        is($request->header($name), $value, $name);
    }
    is(join(', ', $request->headers_all('X-Many')), '1, 2, 3', 'X-Many, in order');
};

behaviour 'response fields travel as they are', sub {
    my ($t) = @_;
    my $up = started($t);
    my @cookies = ('a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly', 'b=2',
        'c="3, 4"; Secure');
    my @languages = map { "l$_" } 1 .. 100;
    $up->reply_with('200 Fine', [
        Date => 'Tue, 15 Nov 1994 08:12:31 GMT', Server => 'upstream/1.0 (x)',
        'Content-Type' => 'Text/HTML; Charset="x"; Boundary=AbC',
        (map { ('Set-Cookie' => $_) } @cookies),
        (map { ('Content-Language' => $_) } @languages), ETag => '"x"', Vary => 'Accept',
        'X-Empty' => '', Vary => 'Cookie', 'Cache-Control' => 'max-age=1',
        'Cache-Control' => 'private', 'X-A' => "\xc3\xa4",
        'WWW-Authenticate' => 'Basic realm="a, b"', 'WWW-Authenticate' => 'Bearer', Age => '5',
        'Content-Encoding' => 'gzip', 'Last-Modified' => 'Tue, 15 Nov 1994 08:12:31 GMT',
        'Accept-Ranges' => 'bytes', 'Content-Security-Policy' => "default-src 'self'",
    ], 'gzip it is not');
    for my $method ('GET', 'HEAD') {
        my $response = $t->request($method, '/');
        is($response->status, 200);
        is($response->reason, 'Fine') unless $t->is_h2;
        is_deeply([$response->headers_all('Set-Cookie')], \@cookies,
            'each cookie has its own field');
        is_deeply([$response->headers_all('Date')], ['Tue, 15 Nov 1994 08:12:31 GMT']);
        is_deeply([$response->headers_all('Server')], ['upstream/1.0 (x)']);
        is($response->header('Content-Type'), 'Text/HTML; Charset="x"; Boundary=AbC');
        is(join(', ', $response->headers_all('Content-Language')), join(', ', @languages));
        like(join(', ', $response->headers_all('Vary')), qr/^Accept, ?Cookie$/);
        is(join(', ', $response->headers_all('Cache-Control')), 'max-age=1, private');
        is_deeply([$response->headers_all('WWW-Authenticate')], ['Basic realm="a, b"', 'Bearer']);
        is($response->header('ETag'), '"x"');
        is($response->header('X-Empty'), '');
        is($response->header('X-A'), "\xc3\xa4");
        is($response->header('Content-Encoding'), 'gzip');
        is($response->header('Content-Length'), 14, "length of the $method");
        is($response->header('Content-Security-Policy'), "default-src 'self'");
        is($response->header('X-Forwarded-For'), undef);
    }
};

behaviour 'every status has its fields, 304 and errors too', sub {
    my ($t) = @_;
    my $up = started($t);
    $up->on_request(sub {
        my ($status) = $_[0]->target =~ /(\d+)/;
        return ["$status Own words", [Date => 'Tue, 15 Nov 1994 08:12:31 GMT', 'X-A' => $status,
            'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2', 'WWW-Authenticate' => 'Basic',
            ETag => '"e"', 'Retry-After' => '5', 'Content-Range' => 'bytes 0-3/10'],
            $status =~ /[23]04/ ? '' : 'body'];
    });
    for my $status (201, 204, 206, 301, 304, 400, 401, 404, 418, 429, 500, 503, 599) {
        my $response = $t->get("/$status");
        is($response->status, $status);
        is($response->reason, 'Own words') unless $t->is_h2;
        is($response->body, $status =~ /[23]04/ ? '' : 'body');
        is($response->header('Date'), 'Tue, 15 Nov 1994 08:12:31 GMT');
        is($response->header('ETag'), '"e"');
        next if $status == 304;    # httpd sends with it what RFC 9110 section 15.4.5 lists
        is($response->header('X-A'), $status);
        is(join('|', $response->headers_all('Set-Cookie')), 'a=1|b=2');
        is($response->header('Retry-After'), '5');
    }
};

# A guard: the engine has no HTTP/2.
behaviour 'upstream fields choose no handler of this server', except => ['engine-h2'], sub {
    my ($t) = @_;
    $t->extra_modules('info', 'status', 'alias', 'headers');
    my $file = $t->file('htdocs/local/secret.txt', "local secret\n");
    my $up = started($t, '<Location /server-info>', 'SetHandler server-info', 'Require all denied',
        '</Location>');
    my @types = ('server-info', 'server-status', 'application/x-httpd-cgi', 'rproxy',
        'rproxy-manager', 'httpd/unix-directory', 'proxy:http://127.0.0.1/',
        'application/x-httpd-php', 'default-handler');
    my @cases = ((map { ['Content-Type' => $_],
            ['Content-Type' => $_, Location => '/server-info'],
            ['Content-Type' => $_, Location => '/local/secret.txt'] } @types),
        ['X-Sendfile' => $file, 'X-Accel-Redirect' => '/local/secret.txt', Status => '302']);
    $up->on_request(sub { return [200, $cases[substr $_[0]->target, 1], 'the answer'] });
    my $client = $t->client;
    for my $n (0 .. $#cases) {
        my $response = $client->get("/$n");
        is($response->status, 200, "@{ $cases[$n] }");
        is($response->body, 'the answer');
        is($response->header('Content-Type'), $cases[$n][1])
            if $cases[$n][0] eq 'Content-Type';
    }
};

# Header edit is the pipeline's: the engine has no HTTP/2.
behaviour 'RequestHeader and Header of mod_headers see requests and responses',
    except => ['engine-h2'], sub {
    my ($t) = @_;
    $t->extra_modules('headers', 'setenvif');
    my $up = started($t, 'RequestHeader set X-Set early', 'RequestHeader unset X-Drop',
        'RequestHeader set X-Forwarded-For 9.9.9.9', 'Header set X-Response yes',
        'Header edit Set-Cookie ^ pre-', 'Header unset X-Server-Side',
        'Header always set X-Always 1');
    $up->reply_with(200, ['Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2', 'X-Server-Side' => 1], 'x');
    my $response = $t->get('/', 'X-Drop' => 1);
    is($up->request->header('X-Set'), 'early');
    is($up->request->header('X-Drop'), undef);
    is($up->request->header('X-Forwarded-For'), '127.0.0.1', 'the proxy has the last word');
    is($response->header('X-Response'), 'yes');
    is($response->header('X-Always'), '1');
    is($response->header('X-Server-Side'), undef);
    is_deeply([$response->headers_all('Set-Cookie')], ['pre-a=1', 'pre-b=2']);
};

behaviour 'mod_remoteip names the client, the connection names the peer',
    lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    $t->extra_modules('remoteip');
    my $up = started($t, 'RemoteIPHeader X-Real', 'RemoteIPInternalProxy 127.0.0.1');
    my $request = sent($t, $up, 'X-Real' => '192.0.2.7', 'X-Forwarded-For' => '6.6.6.6');
    unlike($request->header('X-Forwarded-For'), qr/6\.6\.6\.6/);
};

done_testing;
