#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Beside the other modules of a server, in one child: each does its part for proxied requests as for
# any other, and none is disturbed.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Compress::Raw::Zlib qw(Z_OK Z_STREAM_END WANT_GZIP);
use Compress::Zlib ();
use Digest::SHA qw(sha1_base64);
use MIME::Base64 qw(encode_base64);

my @MODULES = qw(proxy proxy_http http2 ssl deflate filter reqtimeout status rewrite headers mime
    dir alias auth_basic authn_file);

# A response's handler that waits until the test says go.
sub held {
    my ($conn) = @_;
    while (my $request = $conn->read_request) {
        $conn->notify('arrived');
        $conn->wait_for('go', 30);
        $conn->respond(200, ['Content-Type' => 'text/plain'], 'held: ' . $request->body) or last;
    }
    return;
}

# All those modules loaded, and RProxyPass / to one upstream behind the lines given.
sub beside {
    my ($t, $lines, @upstream) = @_;
    my $up = $t->upstream(@upstream);
    $t->extra_modules(@MODULES);
    $t->server_config('TypesConfig /dev/null');
    $t->config(@{ $lines // [] }, 'RProxyPass / ' . $up->url . '/');
    $t->start;
    return $up;
}

# Text so far from a gzip stream whose pieces come as they come.
sub gunzip_until {
    my ($exchange, $inflate, $pattern) = @_;
    my $text = '';
    while ($text !~ $pattern) {
        my $piece = $exchange->read_some;
        die "the stream ended before $pattern\n" if $piece eq '';
        my $status = $inflate->inflate($piece, $text);
        die "bad gzip: $status\n" if $status != Z_OK && $status != Z_STREAM_END;
    }
    return $text;
}

behaviour 'mod_deflate compresses proxied responses', sub {
    my ($t) = @_;
    my $text = join '', map { "line $_ of the text\n" } 1 .. 10_000;
    my $up = beside($t, ['AddOutputFilterByType DEFLATE text/plain'])->on_request(sub {
        my ($request) = @_;
        my $type = $request->target eq '/image' ? 'image/png' : 'text/plain';
        return [200, ['Content-Type' => $type, ETag => '"a"'], $text];
    });
    my $response = $t->get('/text', 'Accept-Encoding' => 'gzip');
    is($response->header('Content-Encoding'), 'gzip', 'compressed');
    like($response->header('Vary'), qr/Accept-Encoding/, 'Vary');
    isnt($response->header('Content-Length') // -1, length $text, 'not the length of the text');
    ok($response->complete, 'complete');
    ok(Compress::Zlib::memGunzip($response->body) eq $text, 'the text');
    for my $case (['/text', 'identity'], ['/image', 'gzip']) {
        $response = $t->get($case->[0], 'Accept-Encoding' => $case->[1]);
        is($response->header('Content-Encoding'), undef, "@$case: not compressed");
        is($response->header('Content-Length'), length $text, 'length');
        ok($response->body eq $text, 'the text');
    }
    $response = $t->request('HEAD', '/text', { headers => ['Accept-Encoding' => 'gzip'] });
    is($response->status, 200, 'HEAD');
};

behaviour 'a compressed stream reaches the client when the upstream pauses', sub {
    my ($t) = @_;
    my $up = beside($t, ['SetOutputFilter DEFLATE'], sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->respond(200, ['Content-Type' => 'text/event-stream',
            'Transfer-Encoding' => 'chunked', Connection => 'close']);
        for my $number (1 .. 3) {
            $conn->write_chunk("event $number\n");
            $conn->wait_for('go');
        }
        $conn->write_last_chunk;
    });
    my $exchange = $t->begin('GET', '/', { headers => ['Accept-Encoding' => 'gzip'] });
    is($exchange->head->header('Content-Encoding'), 'gzip', 'compressed');
    my ($inflate) = Compress::Raw::Zlib::Inflate->new(-WindowBits => WANT_GZIP);
    for my $number (1 .. 3) {
        is(gunzip_until($exchange, $inflate, qr/\n/), "event $number\n", "event $number");
        $up->signal('go');
    }
    my $response = $exchange->response;
    ok($response->complete, 'complete');
    cmp_ok($inflate->inflate($response->body, my $text), '==', Z_STREAM_END,
        'with the end of the gzip');
};

behaviour 'an input filter unpacks uploads', sub {
    my ($t) = @_;
    my $up = beside($t, ['SetInputFilter DEFLATE'])->echo;
    for my $size (10, 100_000) {
        my $text = substr join('', map { "line $_\n" } 1 .. $size), 0, $size;
        my $packed = Compress::Zlib::memGzip($text);
        for my $chunked (0, 1) {
            my $response = $t->request('POST', '/', { body => $packed, chunked => $chunked,
                headers => ['Content-Encoding' => 'gzip'] });
            is($response->status, 200, "$size bytes" . ($chunked ? ', chunked' : ''));
            ok($response->body eq $text, 'unpacked');
            my $request = $up->request;
            ok($request->complete && $request->body eq $text, 'framed as what it is now');
            is($request->header('Content-Encoding'), undef, 'no Content-Encoding any more');
        }
        is($t->request('POST', '/', { body => $text })->body, $text, 'plain ones pass');
    }
    # In pieces: the filter cannot wait without a thread, so it waits in one.
    my $packed = Compress::Zlib::memGzip('some text');
    my $exchange = $t->begin('POST', '/', { stream => 1, headers => ['Content-Encoding' => 'gzip',
        'Content-Length' => length $packed] });
    $exchange->write(substr $packed, 0, 15);
    is($t->get('/')->status, 200, 'others are served meanwhile');
    $exchange->write(substr $packed, 15);
    $exchange->finish;
    is($exchange->response->body, 'some text', 'an upload in pieces');
};

# Where mod_http2 has the connection the time is its own.
behaviour 'mod_reqtimeout ends uploads that stall', except => ['h2'], sub {
    my ($t) = @_;
    my $up = beside($t, ['RequestReadTimeout header=10 body=1'], sub {
        my ($conn) = @_;
        $conn->read_head or return;
        $conn->notify('head');
        $conn->wait_closed;
        $conn->notify('gone');
    });
    my $exchange = $t->begin('POST', '/', { stream => 1, headers => ['Content-Length' => 100] });
    $exchange->write('0123456789');
    $up->wait_event('head');
    my $response = $exchange->response;
    is($response->status, 408, 'an answer that says so');
    like($response->header('Connection'), qr/close/i, 'the connection is not kept')
        if !$t->is_h2;
    $up->wait_event('gone');
    like($t->wait_access_log(qr/POST/), qr/^408 /, 'logged');
};

behaviour 'mod_reqtimeout leaves the time of the upstream alone', except => ['h2'], sub {
    my ($t) = @_;
    my $up = beside($t, ['RequestReadTimeout header=1 body=1'], \&held);
    my $exchange = $t->begin('POST', '/', { body => 'hello' });
    $up->wait_event('arrived');
    ok($exchange->quiet_for(1.5), 'an upstream that takes longer than an upload may');
    $up->signal('go');
    is($exchange->response->body, 'held: hello', 'is waited for');
};

behaviour "mod_proxy's own paths work in the same child", sub {
    my ($t) = @_;
    my $other = $t->upstream->echo;
    my $up = beside($t, [
        'ProxyPass /old/ ' . $other->url . '/at-old/',
        'ProxyPassReverse /old/ ' . $other->url . '/',
        'RProxyPass /old !', 'RProxyPass /rewritten !', 'RewriteEngine on',
        'RewriteRule ^/rewritten/(.*) ' . $other->url . '/at-rewritten/$1 [P]',
    ])->echo;
    my $client = $t->client;
    for my $round (1 .. 3) {
        is($client->request('POST', '/new', { body => "a $round" })->body, "a $round", 'ours');
        is($client->request('POST', '/old/x', { body => "b $round" })->body, "b $round",
            "mod_proxy's");
        is($client->request('POST', '/rewritten/y', { body => "c $round" })->body, "c $round",
            "RewriteRule's");
    }
    is_deeply([map { $_->target } $up->requests], [('/new') x 3], 'to our upstream');
    is_deeply([map { $_->target } $other->requests], [('/at-old/x', '/at-rewritten/y') x 3],
        "to mod_proxy's");
};

behaviour 'mod_rewrite changes the path before it is sent', sub {
    my ($t) = @_;
    my $up = beside($t, ['RewriteEngine on', 'RewriteRule ^/before/(.*) /after/$1 [PT]',
        'RewriteRule ^/gone - [G]', 'RewriteRule ^/moved /elsewhere [R=302]']);
    is($t->get('/before/a%20b?q=1')->status, 200, 'rewritten');
    is($up->request->target, '/after/a%20b?q=1', 'the new path');
    is($t->get('/gone')->status, 410, 'answered by itself');
    my $moved = $t->get('/moved');
    is($moved->status, 302, 'redirected');
    like($moved->header('Location'), qr{/elsewhere$}, 'Location');
    is(scalar $up->requests, 1, 'which the upstream does not see');
};

behaviour 'mod_headers acts on both messages', sub {
    my ($t) = @_;
    my $dead = $t->refused_port;
    my $up = beside($t, [
        'RequestHeader set X-Added "to the request"', 'RequestHeader unset X-Secret',
        'Header set X-Set "by mod_headers"', 'Header unset X-Internal',
        'Header edit X-Edited one two', 'Header append Cache-Control private',
        'Header always set X-Always here', "RProxyPass /dead http://127.0.0.1:$dead/",
    ]);
    $up->reply_with(200, ['X-Set' => 'by the upstream', 'X-Internal' => 1, 'X-Edited' => 'one',
        'Cache-Control' => 'max-age=1'], 'body');
    my $response = $t->get('/', 'X-Secret' => 'secret');
    is($up->request->header('X-Added'), 'to the request', 'RequestHeader set');
    is($up->request->header('X-Secret'), undef, 'RequestHeader unset');
    is_deeply([$response->headers_all('X-Set')], ['by mod_headers'], 'Header set');
    is($response->header('X-Internal'), undef, 'Header unset');
    is($response->header('X-Edited'), 'two', 'Header edit');
    like($response->header('Cache-Control'), qr/max-age=1, *private/, 'Header append');
    is($response->header('X-Always'), 'here', 'Header always');
    $response = $t->get('/dead');
    is($response->status, 502, 'an error');
    is($response->header('X-Always'), 'here', 'has what is always set');
};

behaviour 'static files, and what is not proxied, are served as ever', sub {
    my ($t) = @_;
    $t->file('htdocs/static/index.html', "index\n");
    $t->file('htdocs/static/large.txt', 'x' x 1_000_000);
    my $up = beside($t, ['RProxyPass /static !',
        'AddType text/html .html', 'AddType text/plain .txt', 'DirectoryIndex index.html']);
    my $client = $t->client;
    for my $round (1 .. 2) {
        is($client->get('/static/')->body, "index\n", 'a directory index');
        is($client->get('/app')->body, "upstream\n", 'a proxied path in between');
        my $file = $client->get('/static/large.txt');
        ok($file->complete && $file->body eq 'x' x 1_000_000, 'a large file');
        is($file->header('Content-Type'), 'text/plain', 'its type');
        is($client->get('/static/large.txt', Range => 'bytes=0-4')->body, 'xxxxx', 'a range of it');
        is($client->get('/static/none')->status, 404, 'a missing one');
    }
    is(scalar $up->requests, 2, 'the upstream sees its own alone');
};

behaviour 'Basic authentication guards proxied paths', sub {
    my ($t) = @_;
    my $users = $t->file('conf/users', 'ann:{SHA}' . sha1_base64('secret') . "=\n");
    my $up = beside($t, ['<Location /private>', 'AuthType Basic', 'AuthName private',
        "AuthUserFile \"$users\"", 'Require user ann', '</Location>']);
    my $response = $t->get('/private');
    is($response->status, 401, 'without a password');
    like($response->header('WWW-Authenticate'), qr/Basic realm="private"/, 'asked for one');
    my $wrong = 'Basic ' . encode_base64('ann:wrong', '');
    is($t->get('/private', Authorization => $wrong)->status, 401, 'with a wrong one');
    is($t->request('POST', '/private', { body => 'x' x 100_000 })->status, 401, 'an upload');
    is($t->get('/%70rivate/x')->status, 401, 'in another spelling');
    is(scalar $up->requests, 0, 'nothing reaches the upstream');
    my $right = 'Basic ' . encode_base64('ann:secret', '');
    is($t->get('/private', Authorization => $right)->status, 200, 'with the right one');
    is($t->get('/open')->status, 200, 'elsewhere without');
    is(scalar $up->requests, 2, 'these do');
};

behaviour 'Require ip guards proxied paths', sub {
    my ($t) = @_;
    my $up = beside($t, ['<Location /far>', 'Require ip 10.0.0.0/8', '</Location>',
        '<Location /near>', 'Require ip 127.0.0.1', '</Location>',
        '<LocationMatch "^/no[a-z]*/secret">', 'Require all denied', '</LocationMatch>']);
    is($t->get('/far')->status, 403, 'from elsewhere only');
    is($t->get('/near')->status, 200, 'from here');
    is($t->get('/normal/secret')->status, 403, 'LocationMatch');
    is(scalar $up->requests, 1, 'the upstream sees what is allowed');
};

behaviour 'ErrorDocument gives the pages of errors that the proxy makes', sub {
    my ($t) = @_;
    $t->file('htdocs/errors/502.html', "our own page\n");
    my $dead = $t->refused_port;
    my $up = beside($t, ['RProxyPass /errors !', "RProxyPass /dead http://127.0.0.1:$dead/",
        'ErrorDocument 502 /errors/502.html', 'ErrorDocument 403 "go away"',
        '<Location /denied>', 'Require all denied', '</Location>']);
    $up->reply_with(502, [], "the upstream's own\n");
    for my $method (qw(GET POST)) {
        my $response = $t->request($method, '/dead', $method eq 'POST' ? { body => 'x' } : {});
        is($response->status, 502, "$method: the error's status");
        is($response->body, "our own page\n", 'with the local page');
        like($response->header('Proxy-Status'), qr/error=connection_refused/, 'and the reason');
    }
    is($t->get('/denied')->body, 'go away', 'a text as well');
    is($t->get('/')->body, "the upstream's own\n", "an upstream's page passes");
};

behaviour 'mod_status shows what the proxy does', sub {
    my ($t) = @_;
    my $dead = $t->refused_port;
    my $up = beside($t, ['RProxyPass /server-status !', "RProxyPass /dead http://127.0.0.1:$dead/",
            '<Location /server-status>', 'SetHandler server-status', '</Location>',
            'RProxyRetry on=off'], sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/wait') {
                $conn->notify('arrived');
                $conn->wait_for('go', 30);
            }
            $conn->respond(200, [], 'x' x 1_000) or last;
        }
    });
    # In HTTP/1.1: the engine has HTTP/2 clients come back with that for this page.
    my $status = sub { return $t->raw_client->get('/server-status' . shift)->body };
    my $client = $t->client;
    $client->request('POST', '/', { body => 'y' x 500 }) for 1 .. 4;
    $client->get('/dead');
    my $waiting = $t->begin('GET', '/wait');
    $up->wait_event('arrived');
    my %value;
    wait_until('the counts', undef, sub {
        %value = map { /^(RProxy\S+): (\d+)$/ ? ($1 => $2) : () }
            split /\n/, $status->('?auto');
        return $value{RProxyRequests} == 6 && $value{'RProxyError-connection-refused'} == 1
            && ($t->mpm ne 'event' || $t->is_h2 || $value{RProxyParked} == 1);
    });
    is($value{RProxyActive}, 1, 'active');
    is($value{RProxyTunnels}, 0, 'tunnels');
    is($value{RProxyBytesSent}, 2_000, 'bytes to upstreams');
    is($value{RProxyBytesReceived}, 4_000, 'bytes from upstreams');
    cmp_ok($value{RProxyConnects} + $value{RProxyReuses}, '>=', 5, 'connections');
    is($value{'RProxyError-first-byte-timeout'}, 0, 'every reason has its key');
    $up->signal('go');
    is(length $waiting->response->body, 1_000, 'answered');
    wait_until('nothing active', undef,
        sub { return $status->('?auto') =~ /^RProxyActive: 0$/m });
    my $page = $status->('');
    like($page, qr/mod_rproxy/, 'a section of the page');
    like($page, qr{<td>requests</td><td>6</td>}, 'with its numbers');
    like($page, qr/connection-refused/, 'and reasons');
    $t->graceful;
    like($status->('?auto'), qr/^RProxyRequests: 6$/m, 'a graceful restart keeps them');
};

behaviour 'the access log is right for requests that waited', except => ['h2'], sub {
    my ($t) = @_;
    $t->access_format('%>s %b %O %I %D %X %{rproxy-driver}e %U');
    my $up = beside($t, [], sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->notify('arrived');
            $conn->wait_for($request->target, 30);
            $conn->respond(200, [], 'x' x 2_000) or last;
        }
    });
    my $fields = sub {
        my ($path) = @_;
        my @fields = split / /, $t->wait_access_log(qr{ \Q$path\E$});
        return @fields;
    };
    for my $close ($t->is_h2 ? 0 : (0, 1)) {
        my $path = "/wait/$close";
        my $exchange = $t->begin('POST', $path, { body => 'y' x 3_000,
            headers => $close ? [Connection => 'close'] : [] });
        $up->wait_event('arrived');
        ok($exchange->quiet_for(0.4), 'it waits');
        $up->signal($path);
        my $response = $exchange->response;
        my ($status, $body, $out, $in, $time, $connection, $driver) = $fields->($path);
        is($status, 200, '%>s');
        is($body, 2_000, '%b');
        if (!$t->is_tls) {
            is($out, length($response->raw_head) + 2_000, '%O');
            cmp_ok($in, '>', 3_000, '%I: more than the body');
            cmp_ok($in, '<', 3_500, '%I: and the head');
        }
        cmp_ok($time, '>=', 400_000, '%D: the time it waited');
        cmp_ok($time, '<', 30_000_000, '%D: in microseconds');
        is($connection, $close ? '-' : '+', '%X');
        is($driver, $t->is_engine ? 'engine' : $t->mpm eq 'event' ? 'parked' : 'blocking',
            'how it waited');
    }
    my $exchange = $t->begin('GET', '/wait/left');
    $up->wait_event('arrived');
    $exchange->abort;
    my ($status, undef, undef, undef, undef, $connection) = $fields->('/wait/left');
    is($status, 499, 'a client that left: %>s');
    is($connection, 'X', '%X');
};

done_testing;
