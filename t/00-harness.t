#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The harness tests itself with httpd and mod_proxy between its two ends, and whether what must
# fail a test does. 00-harness-ends.t tests the ends alone.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Cwd ();

# httpd in front of one upstream by means of mod_proxy; in lane engine-h2 only the engine speaks
# HTTP/2.
sub proxied {
    my ($t, @args) = @_;
    my $up = $t->upstream(@args);
    $t->extra_modules('proxy', 'proxy_http');
    my $directive = $t->is_h2 && !$t->has_mod_http2 ? 'RProxyPass' : 'ProxyPass';
    $t->config("$directive / " . $up->url . '/');
    $t->start;
    return $up;
}

# ---- through httpd, in every lane -----------------------------------------------------------

behaviour 'a request and its response', sub {
    my ($t) = @_;
    my $up = proxied($t);
    $up->reply_with(203, ['X-One' => 1, 'X-Two' => 2, 'X-One' => 3], 'body');
    my $response = $t->get('/path?q', 'X-A' => 'b');
    is($response->status, 203);
    is($response->body, 'body');
    is($response->version, $t->is_h2 ? '2' : '1.1');
    is_deeply([$response->headers_all('x-one')], [1, 3]);
    ok($response->complete);
    is($up->request->target, '/path?q');
    is($up->request->header('x-a'), 'b');
    is($up->request->header('X-Forwarded-Host'), $t->host);
    is($t->request('HEAD', '/')->status, 203);
    like($t->wait_access_log(qr/HEAD/), qr{203 .*"HEAD / HTTP/});
    is(scalar($t->access_log), 2);
};

behaviour 'bodies both ways, larger than any window', sub {
    my ($t) = @_;
    proxied($t)->echo;
    my $body = join '', map { chr($_ * 7 % 256) x 997 } 1 .. 2_000;
    for my $chunked (0, 1) {
        my $response = $t->request('POST', '/', { body => $body, chunked => $chunked });
        ok($response->body eq $body, length($body) . ' bytes, ' . ($chunked ? 'chunked' : 'CL'));
        ok($response->complete);
    }
};

behaviour 'bytes arrive as they come, both ways', sub {
    my ($t) = @_;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        my $request = $conn->read_head;
        if ($request->method eq 'POST') {
            1 while $conn->read_body_piece ne '';
            $conn->respond(200, [Connection => 'close'], 'got it');
        }
        else {
            $conn->respond(200, ['Transfer-Encoding' => 'chunked', Connection => 'close']);
            for my $n (1 .. 3) {
                $conn->write_chunk("event $n\n");
                $conn->wait_for('go');
            }
            $conn->write_last_chunk;
        }
    });
    my $exchange = $t->begin('GET', '/');
    is($exchange->head->status, 200);
    for my $n (1 .. 3) {
        is($exchange->read_until(qr/\n/), "event $n\n");
        $up->signal('go');
    }
    my $response = $exchange->response;
    is($response->body, "event 1\nevent 2\nevent 3\n", 'the whole body is kept');
    ok($response->complete);
    $exchange = $t->begin('POST', '/', { stream => 1 });
    $exchange->write('first');
    $exchange->write('second');
    $exchange->finish;
    is($exchange->response->body, 'got it');
    is($up->request->body, 'firstsecond');
};

behaviour 'interim responses reach the client', sub {
    my ($t) = @_;
    $t->config('H2EarlyHints on') if $t->has_mod_http2;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
        $conn->respond(200, [], 'text');
        $conn->wait_closed;
    });
    my $response = $t->get('/');
    is($response->status, 200);
    is_deeply([map { $_->status } @{ $response->interim }], [103]);
    is($response->interim->[0]->header('link'), '</style.css>');
    is($response->body, 'text');
};

behaviour 'a response that broke off is seen as broken', sub {
    my ($t) = @_;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.");
        $conn->wait_for('break');
    });
    my $exchange = $t->begin('GET', '/');
    is($exchange->head->status, 200);
    $up->signal('break');
    my $response = $exchange->response;
    ok(!$response->complete);
    ok(defined $response->error, 'with a reason') and note $response->error;
};

behaviour 'a client that leaves early closes the upstream', sub {
    my ($t) = @_;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        $conn->read_request;
        $conn->respond(200, ['Content-Length' => 1_000_000_000]);
        1 while $conn->write('x' x 100_000);
        $conn->notify('gone');
    });
    my $exchange = $t->begin('GET', '/');
    $exchange->read_exact(100);
    $exchange->abort;
    ok($up->wait_event('gone'));
};

behaviour '100-continue is waited for', sub {
    my ($t) = @_;
    proxied($t)->echo;
    my $response = $t->request('POST', '/', { body => 'later', expect => 1 });
    is($response->status, 200);
    is($response->interim->[0]->status, 100);
    is($response->body, 'later');
};

behaviour 'parallel requests and background tasks', sub {
    my ($t) = @_;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->notify('arrived');
            $conn->wait_for('all');
            $conn->respond(200, [], $request->target);
        }
    });
    my $background = $t->background(sub { return $t->get('/background') });
    $up->wait_event('arrived');
    $up->signal('all');
    is($background->result->body, '/background');
    $up->on_request(sub { my ($request) = @_; return [200, [], $request->target] });
    my @responses = $t->parallel(6, sub { my ($n) = @_; return $t->get("/$n") });
    is_deeply([map { $_->body } @responses], [map { "/$_" } 0 .. 5]);
    ok(!eval { $t->background(sub { die "as it died\n" })->result });
    is($@, "as it died\n");
};

behaviour 'WebSocket frames pass', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub { RProxy::WebSocket->server($_[0])->echo });
    $t->extra_modules('proxy', 'proxy_http');
    $t->config('ProxyPass / ' . $up->url . '/ upgrade=websocket');
    $t->start;
    my $socket = $t->websocket('/chat');
    for my $text ('hello', 'x' x 300, 'y' x 70_000) {
        $socket->send_text($text);
        ok($socket->read_text eq $text, length($text) . ' bytes');
    }
    $socket->send_ping('p');
    is_deeply([$socket->read_frame], [RProxy::WebSocket::PONG, 'p', 1]);
    $socket->send_close(1000, 'bye');
    is_deeply([$socket->read_frame], [RProxy::WebSocket::CLOSE, pack('n', 1000) . 'bye', 1]);
    ok($socket->stream->wait_closed, 'and the connection ends');
};

behaviour 'HTTP/2: streams side by side, extended CONNECT, reset', lanes => ['h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_head // return;
        if (($request->header('Upgrade') // '') eq 'websocket') {
            $conn->respond(101, [Upgrade => 'websocket', Connection => 'Upgrade',
                'Sec-WebSocket-Accept' => RProxy::WebSocket::accept_value(
                    $request->header('Sec-WebSocket-Key'))]);
            return RProxy::WebSocket->over($conn, mask => 0)->echo;
        }
        $conn->wait_for('slow') if $request->target eq '/slow';
        $conn->respond(200, [Connection => 'close'], $request->target);
    });
    $t->extra_modules('proxy', 'proxy_http');
    $t->config('H2WebSockets on', 'ProxyPass / ' . $up->url . '/ upgrade=websocket');
    $t->start;
    my $client = $t->h2_client;
    my $slow = $client->begin('GET', '/slow');
    is($client->get('/fast')->body, '/fast', 'a later stream answers first');
    $up->signal('slow');
    is($slow->response->body, '/slow');
    is($client->wait_settings->{ RProxy::H2::SETTING_ENABLE_CONNECT_PROTOCOL() }, 1);
    my $tunnel = $client->begin('CONNECT', '/chat', { protocol => 'websocket', stream => 1,
        headers => ['Sec-WebSocket-Version' => 13] });
    is($tunnel->head->status, 200, 'tunnel is open');
    my $socket = RProxy::WebSocket->over($tunnel);
    $socket->send_text('over h2');
    is($socket->read_text, 'over h2');
    $tunnel->abort;
    is($client->get('/after')->body, '/after', 'the connection lives on');
    my $bad = $client->begin('GET', '/', { headers => [[':late', 'x']] })->response;
    is($bad->status, undef, 'a malformed request gets no response');
    like($bad->error, qr/RST_STREAM PROTOCOL_ERROR/);
    is($t->raw_client->get('/1')->version, '1.1', 'HTTP/1.1 over TLS is there too');
};

# ---- httpd ----------------------------------------------------------------------------------

behaviour 'virtual hosts, ports, documents and .htaccess', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $port = $t->listen;
    $t->extra_modules('headers');
    $t->server_config('ServerTokens Prod');
    $t->vhost('other.test', 'Header set X-Vhost other');
    $t->vhost('port.test', ['Header set X-Vhost port'], port => $port, tls => 0);
    $t->file('htdocs/x/index.txt', "text\n");
    $t->file('htdocs/x/.htaccess', "Header set X-Htaccess yes\n");
    $t->start;
    my $response = $t->get('/x/index.txt');
    is($response->body, "text\n");
    is($response->header('X-Htaccess'), 'yes');
    is($response->header('Server'), 'Apache');
    is($response->header('X-Vhost'), undef);
    is($t->request('GET', '/x/index.txt', { host => 'other.test',
            $t->is_tls ? (client => { tls => { SSL_hostname => 'other.test',
                SSL_verifycn_name => 'other.test' } }) : () })->header('X-Vhost'), 'other');
    is($t->raw_client(port => $port, tls => 0)->get('/x/index.txt')
        ->header('X-Vhost'), 'port');
};

behaviour 'start-up errors are reported with their line', lanes => ['event', 'prefork'], sub {
    my ($t) = @_;
    my ($code, $output) = $t->httpd_test;
    is($code, 0);
    like($output, qr/Syntax OK/);
    $t->config('NoSuchDirective here');
    my $line = $t->config_line(qr/NoSuchDirective/);
    ($code, $output) = $t->httpd_test;
    isnt($code, 0);
    like($output, qr/line $line .*Invalid command 'NoSuchDirective'/s);
    ok(!eval { $t->start }, 'start fails');
    like($@, qr/httpd did not start: .*NoSuchDirective/s);
    ok(!$t->is_running);
};

behaviour 'graceful restart, graceful stop and stop', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = proxied($t, sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->notify('slow') && $conn->wait_for('go') if $request->target eq '/slow';
            $conn->respond(200, [], 'fine');
        }
    });
    is($t->get('/')->status, 200);
    my %before = map { $_ => 1 } $t->children;
    $t->extra_modules('headers');
    $t->config('Header set X-Generation 2');
    $t->graceful;
    is($t->get('/')->header('X-Generation'), 2, 'the new configuration is used');
    ok(!$before{ $t->child_pid }, 'by a new child');
    my $exchange = $t->begin('GET', '/slow');
    $up->wait_event('slow');
    $t->graceful_stop;
    $t->wait_log(qr/AH00492|AH00296|AH00174|caught SIGWINCH/);
    $up->signal('go');
    is($exchange->response->body, 'fine', 'answered during the graceful stop');
    $exchange->close;
    is($t->wait_exit, 0, 'exit status');
    ok(!$t->is_running);
    $t->start;
    is($t->get('/')->status, 200, 'started again');
    $t->stop;
    ok(!$t->is_running);
};

behaviour 'facts about children', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    proxied($t);
    $t->get('/');
    my $pid = $t->child_pid;
    cmp_ok($t->memory($pid)->{rss}, '>', 1_000_000, 'rss');
    $t->reset_peak($pid);
    my $memory = $t->memory($pid);      # both at one moment
    cmp_ok($memory->{peak}, '>=', $memory->{rss}, 'peak');
    cmp_ok($t->descriptors($pid), '>', 5, 'descriptors');
    is($t->threads($pid) > 4 ? 1 : 0, $t->mpm eq 'prefork' ? 0 : 1, 'threads');
    like($t->error_log, qr/resuming normal operations/);
    like($t->wait_log(qr/AH00094/), qr/Command line/);
};

behaviour 'MPM settings', lanes => ['worker'], sub {
    my ($t) = @_;
    $t->mpm_config(ThreadsPerChild => 3, MaxRequestWorkers => 6, StartServers => 2);
    $t->start;
    wait_until('two children', undef, sub { return $t->children == 2 });
    pass('two children');
    wait_until('threads', undef, sub { return $t->threads >= 4 });
    cmp_ok($t->threads, '<=', 6, 'few threads');
};

# ---- what must fail a test ------------------------------------------------------------------

# Runs a test file of its own: (exit code, output).
sub nested {
    my ($body) = @_;
    my $lib = Cwd::abs_path("$FindBin::Bin/lib");
    my $script = "use lib '$lib'; use RProxy::Test; behaviour 'nested', lanes => ['event'], sub "
        . "{ my (\$t) = \@_; $body }; done_testing;";
    delete local $ENV{RPROXY_LANES};
    delete local $ENV{RPROXY_ONLY};
    my $pid = open my $out, '-|';
    die "fork: $!\n" unless defined $pid;
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        exec $^X, '-e', $script or POSIX::_exit(127);
    }
    my $output = do { local $/; readline $out };
    close $out;
    return ($? >> 8, $output);
}

behaviour 'what must fail a test fails it', lanes => ['event'], sub {
    my ($t) = @_;
    my $facts = 'diag("DIR=" . $t->directory . " PID=" . $t->pid);';
    my %script = (
        'a child that crashed' => ['$t->start; kill SEGV => $t->child_pid;'
                . '$t->wait_log(qr/AH00052|AH00051/);', qr/exit signal Segmentation fault/],
        'a finding of a sanitizer' => ['$t->start; $t->file("findings/sanitizer.1",'
                . '"ERROR: AddressSanitizer");', qr/ERROR: AddressSanitizer/],
        'a handler that died' => ['my $up = $t->upstream(sub { die "handler\n" }); $t->start;'
                . 'RProxy::Client->connect(port => $up->port)->wait_closed;',
            qr/connection 1: handler/],
        'a test that died' => ['$t->start; die "died here\n";', qr/the test died: died here/],
        'an assertion' => ['$t->start; ok(0);', qr/error log of httpd:.*resuming normal/s],
        'a server that hangs' => ['$t->start; kill STOP => $t->pid;', qr/was killed/],
    );
    for my $what (sort keys %script) {
        my ($body, $expected) = @{ $script{$what} };
        local $ENV{RPROXY_TIMEOUT_SCALE} = 0.1 if $what =~ /hangs/;
        my ($code, $output) = nested($body =~ s/\$t->start;/\$t->start; $facts/r);
        isnt($code, 0, $what);
        like($output, $expected, 'and says why');
        my ($directory, $pid) = $output =~ /DIR=(\S+) PID=(\d+)/;
        ok($pid && !kill(0 => $pid), 'httpd has ended');
        ok($directory && !-e $directory, 'the directory is removed');
    }
    my ($code, $output) = nested('$t->start; $t->tolerate(qr/exit signal/);'
            . 'kill SEGV => $t->child_pid; $t->wait_log(qr/exit signal/);');
    is($code, 0, 'a crash that is tolerated passes') or diag $output;
};

behaviour 'a test that is ended by a signal cleans up', lanes => ['event'], sub {
    my ($t) = @_;
    my ($code, $output) = nested('my $up = $t->upstream; $t->start;'
            . 'diag("DIR=" . $t->directory . " PIDS=" . join ",", $t->pid, $up->{pid});'
            . 'kill TERM => $$; sleep 60;');
    isnt($code, 0);
    my ($directory, $pids) = $output =~ /DIR=(\S+) PIDS=(\S+)/ or diag $output;
    ok(!kill(0 => $_), "process $_ has ended") for split /,/, $pids // '0';
    ok(!-e ($directory // '/'), 'the directory is removed');
};

done_testing;
