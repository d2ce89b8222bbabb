#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Errors, the upstream's and the proxy's own: pages, Proxy-Status (RFC 9209), log variables and
# messages.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# Nothing of this depends on whether a process or a thread waits: prefork stands for both.
without_lanes qw(worker);

# The engine has no HTTP/2 where an ErrorDocument is in force.
my @documents = (except => ['engine-h2']);

# The upstream answers /N with status N and a page of its own.
sub started {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->on_request(sub {
        my ($status) = $_[0]->target =~ /(\d+)/;
        return [$status, ['Content-Type' => 'text/x-theirs',
            'WWW-Authenticate' => 'Basic realm="r"',
            'WWW-Authenticate' => 'Bearer', 'Retry-After' => '7', 'Allow' => 'GET',
            'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2', 'X-Theirs' => 1, ETag => '"theirs"'],
            "their page $status"];
    });
    $t->file('htdocs/own/503.html', "a file for 503\n");
    $t->config('RProxyPass /own !', 'RProxyPass / ' . $up->url . '/', 'ErrorDocument 401 "our 401"',
        'ErrorDocument 404 "our 404"', 'ErrorDocument 503 /own/503.html', @lines);
    $t->start;
    return $up;
}

behaviour 'RProxyErrorOverride off: pages are the upstream\'s', @documents, sub {
    my ($t) = @_;
    started($t);
    for my $status (400, 401, 404, 418, 500, 503) {
        my $response = $t->get("/$status");
        is($response->status, $status);
        is($response->body, "their page $status");
        is($response->header('X-Theirs'), 1);
        is($response->header('Proxy-Status'), undef, 'no error of the proxy');
    }
};

behaviour 'RProxyErrorOverride on: pages are ErrorDocument\'s', @documents, sub {
    my ($t) = @_;
    my $up = started($t, 'RProxyErrorOverride on', '<Location /api>', 'RProxyErrorOverride off',
        '</Location>');
    my %page = (401 => qr/^our 401$/, 404 => qr/^our 404$/, 503 => qr/^a file for 503\n$/,
        500 => qr/Internal Server Error/, 405 => qr/Method Not Allowed/i);
    for my $status (sort keys %page) {
        my $response = $t->get("/$status");
        is($response->status, $status);
        like($response->body, $page{$status});
        unlike($response->body, qr/their page/);
        is($response->header('X-Theirs'), undef, 'the fields of their page stay');
        isnt($response->header('ETag') // '', '"theirs"');
        isnt($response->header('Content-Type') // '', 'text/x-theirs');
        is_deeply([$response->headers_all('WWW-Authenticate')], ['Basic realm="r"', 'Bearer'],
            'what the client needs to go on is kept');
        is($response->header('Retry-After'), 7);
        is_deeply([$response->headers_all('Set-Cookie')], ['a=1', 'b=2']);
        is($response->header('Cache-Control'), 'private', 'cookies are for one client');
        ok($response->complete);
    }
    is($t->get('/200')->body, 'their page 200');
    is($t->get('/302')->body, 'their page 302');
    is($t->get('/api/404')->body, 'their page 404', 'a section turns it off');
    my $head = $t->request('HEAD', '/404');
    is($head->status, 404);
    is($head->body, '');
    my $post = $t->request('POST', '/404', { body => 'x' x 100_000 });
    is($post->status, 404);
    is($post->body, 'our 404');
    is($t->get('/404')->body, 'our 404', 'the next one, too');
};

behaviour 'RProxyErrorOverride with codes', @documents, sub {
    my ($t) = @_;
    started($t, 'RProxyErrorOverride 404 503');
    my %page = (400 => 'their page 400', 401 => 'their page 401', 404 => 'our 404',
        500 => 'their page 500', 503 => "a file for 503\n");
    for my $status (sort keys %page) {
        my $response = $t->get("/$status");
        is($response->status, $status);
        is($response->body, $page{$status});
    }
};

behaviour 'RProxyErrorOverride without ErrorDocument: pages are those of the server', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->on_request(sub {
        my ($status) = $_[0]->target =~ /(\d+)/;
        return [$status, ['Content-Type' => 'text/x-theirs', 'X-Theirs' => 1, ETag => '"theirs"',
            'WWW-Authenticate' => 'Basic realm="r"', 'WWW-Authenticate' => 'Bearer',
            'Retry-After' => '7', 'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2'],
            "their page $status"];
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyErrorOverride 401 404 500');
    $t->start;
    for my $status (401, 404, 500) {
        my $response = $t->get("/$status");
        is($response->status, $status);
        like($response->body, qr/<h1>/i, 'a page');
        unlike($response->body, qr/their page/, 'not theirs');
        is($response->header('X-Theirs'), undef, 'the fields of their page stay');
        is($response->header('ETag'), undef);
        like($response->header('Content-Type'), qr{^text/html}, 'its type');
        is_deeply([$response->headers_all('WWW-Authenticate')], ['Basic realm="r"', 'Bearer'],
            'what the client needs to go on is kept');
        is($response->header('Retry-After'), 7);
        is_deeply([$response->headers_all('Set-Cookie')], ['a=1', 'b=2']);
        is($response->header('Cache-Control'), 'private', 'cookies are for one client');
        is($response->header('Proxy-Status'), undef, 'no error of the proxy');
        ok($response->complete);
        my $head = $t->request('HEAD', "/$status");
        is($head->status, $status, 'HEAD');
        is($head->body, '');
        my $post = $t->request('POST', "/$status", { body => 'x' x 100_000 });
        is($post->status, $status, 'POST');
        like($post->body, qr/<h1>/i);
    }
    is($t->get('/503')->body, 'their page 503', 'others pass');
};

behaviour 'an overridden response whose body never ends', @documents, sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        $conn->read_request // return;
        $conn->write("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n");
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyErrorOverride on',
        'ErrorDocument 503 "ours"');
    $t->start;
    is($t->get('/')->body, 'ours', 'is not waited for');
    ok($up->wait_event('closed'));
};

# [what, target, status, error type, reason, RP id]; the path is /N.
sub failures {
    my ($t) = @_;
    my $bytes = sub {
        my ($text) = @_;
        return $t->upstream(sub {
            my ($conn) = @_;
            $conn->read_some;
            $conn->write($text);
            $conn->wait_closed if $text eq '';
        })->url;
    };
    my $close = $t->upstream(sub { $_[0]->read_request })->url;
    my $refused = 'http://127.0.0.1:' . $t->refused_port;
    my $untrusted = $t->upstream(tls => 1);
    my $directory = $t->directory;
    (my $not_tls = $bytes->("HTTP/1.1 400 Bad Request\r\n\r\n")) =~ s/^http:/https:/;
    return (
        ['refused', $refused, 502, 'connection_refused', 'connection-refused', 'RP0103'],
        ['no name', 'http://no-such-host.invalid', 502, 'dns_error', 'dns-error', 'RP0101'],
        ['no socket', "unix:$directory/none|http://localhost", 502, 'connection_refused',
            'connection-refused', 'RP0103'],
        ['closes', $close, 502, 'connection_terminated', 'closed-early', 'RP0109'],
        ['breaks off', $bytes->('HTTP/1.1 200 O'), 502, 'http_response_incomplete',
            'incomplete-response', 'RP0110'],
        ['garbage', $bytes->("garbage\r\n\r\n"), 502, 'http_protocol_error', 'bad-response',
            'RP0111'],
        ['is silent', $bytes->(''), 504, 'http_response_timeout', 'first-byte-timeout', 'RP0112'],
        ['switches', $bytes->("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), 502,
            'http_upgrade_failed', 'bad-upgrade', 'RP0116'],
        ['certificate', $untrusted->url, 502, 'tls_certificate_error', 'tls-certificate', 'RP0107'],
        ['no TLS', $not_tls, 502, 'tls_protocol_error', 'tls-protocol', 'RP0108'],
    );
}

behaviour 'every failure has its status, Proxy-Status, message and variables', sub {
    my ($t) = @_;
    my @failures = failures($t);
    my $lane = $t->is_engine ? 'engine' : 'pipeline';
    $t->access_format('%>s "%U" lane=%{rproxy-lane}e target=%{rproxy-target}e '
            . 'attempts=%{rproxy-attempts}e total=%{rproxy-total}e error=%{rproxy-error}e');
    $t->config((map { "RProxyPass /$_ $failures[$_][1]/" } 0 .. $#failures),
        map({ ("<Location /$_>", 'RProxyTimeout first-byte=300ms', '</Location>') }
            grep { $failures[$_][0] eq 'is silent' } 0 .. $#failures), $t->rule_for_the_rest);
    $t->start;
    for my $n (0 .. $#failures) {
        my ($what, $target, $status, $type, $reason, $id) = @{ $failures[$n] };
        my $offset = $t->log_size;
        my $response = $t->get("/$n/<script>alert(1)</script>&x?<b>");
        is($response->status, $status, $what);
        is($response->header('Proxy-Status'), '"' . $t->host . "\"; error=$type", "  $type");
        my ($authority) = $target =~ m{//([^/]*)$};
        my $page = join "\n", map({ "$_->[0]: $_->[1]" } @{ $response->headers }), $response->body;
        unlike($page, qr/\Q$authority\E|127\.0\.0\.1|unix:|\.invalid/, '  no addresses')
            or diag($page);
        unlike($page, qr/<script|<b>/, '  no markup of the client');
        like($t->wait_log(qr/$id: /, undef, $offset), qr/:error\].*\Q$target\E.*\($reason\): /,
            "  $id names target and reason");
        my $line = $t->wait_access_log(qr{"/$n/});
        like($line, qr{^$status "/$n/\S*" lane=$lane target=\Q$target\E/ attempts=\d },
            '  and so do the variables');
        like($line, qr{ total=\d+ error=$reason$});
    }
    my @without = grep { /\[rproxy:/ && !/RP\d{4}: / } split /\n/, $t->error_log;
    is_deeply(\@without, [], 'every message has its id');
};

behaviour 'an ErrorDocument for the proxy\'s own errors', @documents, sub {
    my ($t) = @_;
    my $refused = 'http://127.0.0.1:' . $t->refused_port . '/';
    $t->file('htdocs/sorry.html', 'sorry');
    $t->config('RProxyPass /sorry.html !', "RProxyPass / $refused",
        'ErrorDocument 502 /sorry.html');
    $t->start;
    my $response = $t->request('POST', '/x', { body => 'x' });
    is($response->status, 502);
    is($response->body, 'sorry');
    is($response->header('Proxy-Status'), '"' . $t->host . '"; error=connection_refused');
};

behaviour 'an upstream\'s Proxy-Status passes', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->reply_with(502, ['Proxy-Status' => 'inner; error=dns_error'], 'inner');
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    is_deeply([$t->get('/')->headers_all('Proxy-Status')], ['inner; error=dns_error']);
};

# CVE-2019-10092.
behaviour 'refusals escape what the client sent', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $refused = 'http://127.0.0.1:' . $t->refused_port . '/';
    $t->config("RProxyPass /app $refused", "RProxyPassMatch ^/re/(.*)\$ $refused\$1",
        'RProxyPass / !');
    $t->start;
    my $evil = '<script>alert(1)</script>';
    for my $bytes ("GET /app/$evil HTTP/1.1\r\nHost: www.example.test\r\n\r\n",
        "GET /re/../$evil%00 HTTP/1.1\r\nHost: www.example.test\r\n\r\n",
        "GET /app/\\$evil HTTP/1.1\r\nHost: www.example.test\r\n\r\n",
        "GET /re/..%2f$evil HTTP/1.1\r\nHost: www.example.test\r\n\r\n",
        "GET /$evil HTTP/1.1\r\nHost: www.example.test\r\n\r\n",
        "GET /app HTTP/1.1\r\nHost: $evil\r\n\r\n",
        "POST /app HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: $evil\r\n\r\n") {
        my $client = $t->raw_client;
        $client->write($bytes);
        my $response = $client->read_response;
        like($response->status, qr/^(?:4\d\d|50[12])$/);
        unlike($response->body, qr/<script/);
        unlike(join("\n", map { $_->[1] } @{ $response->headers }), qr/<script/);
    }
};

behaviour 'log variables of a request that went well', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->on_request(sub { return [203, [], 'text'] });
    my @names = qw(lane driver target upstream attempts connect first-byte total status reused
        request-id error);
    $t->access_format('%U ' . join ' ', map { "$_=%{rproxy-$_}e" } @names);
    $t->config('RProxyPass / ' . $up->url . '/base');
    $t->start;
    for my $n (1, 2) {
        $t->get("/$n");
        my %seen = map { split /=/, $_, 2 } grep { /=/ } split / /, $t->wait_access_log(qr{^/$n });
        is($seen{lane}, $t->is_engine ? 'engine' : 'pipeline');
        like($seen{driver}, $t->is_engine ? qr/^engine$/ : qr/^(?:blocking|parked)$/);
        is($seen{target}, $up->url . '/base');
        is($seen{upstream}, '127.0.0.1:' . $up->port);
        is($seen{attempts}, 1);
        like($seen{$_}, qr/^\d+$/, $_) for qw(connect first-byte total);
        cmp_ok($seen{'first-byte'}, '<=', $seen{total});
        cmp_ok($seen{connect}, '<=', $seen{'first-byte'});
        is($seen{status}, 203);
        is($seen{'request-id'}, $up->request->header('X-Request-ID'));
        is($seen{error}, '-');
        like($seen{reused}, $n == 1 ? qr/^0$/ : qr/^[01]$/);
    }
};

behaviour 'bytes of either side cannot forge lines of the log', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        $conn->read_request // return;
        $conn->write("HTTP/1.1 200 OK\r\nX: \e[31m\r\nfake\n"
                . "[Sat] [rproxy:error] RP0000: forged\r\n\r\n");
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    is($t->get('/%0a[Sat]%20[rproxy:error]%20RP0000:%20forged?%0aRP0000:%20forged')->status, 502);
    my $client = $t->raw_client;
    $client->write("GET /\\\x1b[31m HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    $client->read_response;
    unlike($t->error_log, qr/^[^\[]*RP0000: forged/m);
    unlike($t->error_log . join('', $t->access_log), qr/\e/);
};

done_testing;
