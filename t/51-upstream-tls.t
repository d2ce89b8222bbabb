#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# TLS to upstreams: what is verified, what is sent, what is shared, and that nothing that is not
# protected by it ever becomes an answer.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use Digest::MD5 qw(md5_hex);
use IO::Socket::SSL;
use IO::Socket::SSL::Utils;
use RProxy::Tunnel;
use RProxy::WebSocket;

use constant MIB => 1_048_576;

# Lines of a route with TLS settings of its own.
sub route {
    my ($path, $url, @tls) = @_;
    $path =~ s{.\K/$}{};
    return ("RProxyPass $path $url",
        @tls ? ("<Location $path>", "RProxyTLS @tls", '</Location>') : ());
}

# An upstream that tells what it saw of TLS in its answers.
sub telling {
    my ($t, %tls) = @_;
    my $up = $t->upstream(tls => {%tls});
    $up->on_request(sub {
        my ($request, $conn) = @_;
        my $socket = $conn->socket;
        my $ssl = $socket->_get_ssl_object;
        return [200, [
            'X-Connection' => $conn->number, 'X-Name' => $conn->sni // 'none',
            'X-Version' => $socket->get_sslversion, 'X-Host' => $request->header('Host'),
            'X-Resumed' => Net::SSLeay::session_reused($ssl) ? 'yes' : 'no',
            'X-Client' => ($socket->peer_certificate('subject') // 'none') =~ s{.*/CN=}{}r,
        ], 'fine'];
    });
    return $up;
}

# A 502 of ours that says which error of RFC 9209 it was.
sub is_refused {
    my ($response, $error, $name) = @_;
    is($response->status, 502, "$name: 502");
    like($response->header('Proxy-Status') // '', qr/^"[^"]+"; error=$error$/, $error);
    ok($response->complete, 'complete');
    return;
}

behaviour 'an upstream is verified by default', sub {
    my ($t) = @_;
    my $certs = $t->certs;
    my $self_signed = do {
        my $key = KEY_create_ec();
        my ($certificate) = CERT_create(key => $key, subject => { CN => '127.0.0.1' },
            subjectAltNames => [[IP => '127.0.0.1']], purpose => { server => 1 });
        my %files = map { $_ => $t->directory . "/self-signed.$_" } qw(cert key);
        PEM_cert2file($certificate, $files{cert});
        PEM_key2file($key, $files{key});
        \%files;
    };
    my @ip = 'IP:127.0.0.1';
    my %bad = (
        'unknown-ca'  => $certs->server([@ip], untrusted => 1),
        'wrong-name'  => $certs->server(['other.test']),
        'wrong-ip'    => $certs->server(['IP:127.0.0.2', '127.0.0.1']),
        'wildcard'    => $certs->server(['*.0.0.1', '*']),
        'expired'     => $certs->server([@ip], expired => 1),
        'self-signed' => $self_signed,
    );
    my %up = map { $_ => telling($t, certificate => $bad{$_}) } keys %bad;
    $up{good} = telling($t, certificate => $certs->server([@ip]));
    $t->access_format('%U %>s %{rproxy-error}e');
    my $ca = 'ca=' . $certs->ca_file;
    for my $name (sort keys %up) {
        $t->config(route("/$name/", $up{$name}->url, $ca),
            route("/off/$name/", $up{$name}->url, 'verify=off'));
    }
    $t->config(route('/system/', $up{good}->url));
    $t->config($t->rule_for_the_rest);
    $t->start;
    is($t->get('/good/')->status, 200, 'a good one is used');
    for my $name (sort keys %bad) {
        my $response = $t->request('POST', "/$name/", { body => 'secret' });
        is_refused($response, 'tls_certificate_error', $name);
        is(scalar $up{$name}->requests, 0, 'no byte of the request was sent');
        $t->wait_access_log(qr{^/$name/ 502 tls-certificate$});
    }
    is_refused($t->get('/system/'), 'tls_certificate_error',
        'by default the CA is none of the tests');
    for my $name (sort keys %up) {
        is($t->get("/off/$name/")->status, 200, "verify=off takes $name");
        is_refused($t->get("/$name/"), 'tls_certificate_error',
            'which the other route does not profit from') if $bad{$name};
    }
    for my $why (qr/expired/, qr/mismatch/i, qr/self[- ]signed/, qr/unable to get local issuer/) {
        ok($t->wait_log(qr/RP0107: .*$why/), "the log says why: $why");
    }
};

behaviour 'the name sent and verified is the target\'s or that of name=', sub {
    my ($t) = @_;
    my $certs = $t->certs;
    my $ca = 'ca=' . $certs->ca_file;
    my $up = telling($t, names => ['backend.test', '*.wild.test', 'localhost']);
    my $ip = telling($t, names => ['IP:127.0.0.1', 'IP:127.0.0.9']);
    my $unix = $t->upstream(unix => 1, tls => { names => ['localhost'] });
    my ($url, $port) = ($up->url, $up->port);
    $t->config(
        route('/named/', $url, $ca, 'name=backend.test'),
        route('/upper/', $url, $ca, 'name=BACKEND.Test'),
        route('/dot/', $url, $ca, 'name=backend.test.'),
        route('/wild/', $url, $ca, 'name=one.wild.test'),
        route('/deep/', $url, $ca, 'name=a.one.wild.test'),
        route('/other/', $url, $ca, 'name=other.test'),
        route('/off/', $url, 'verify=off', 'name=other.test'),
        route('/target/', "https://localhost:$port", $ca),
        route('/address/', $url, $ca),
        route('/ip/', $ip->url, $ca),
        route('/ip-name/', $ip->url, $ca, 'name=127.0.0.9'),
        route('/ip-other/', $ip->url, $ca, 'name=127.0.0.8'),
        route('/unix/', $unix->url, $ca),
    );
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    for my $case (['named', 'backend.test'], ['upper', 'backend.test'], ['dot', 'backend.test'],
        ['wild', 'one.wild.test'], ['off', 'other.test'], ['target', 'localhost'], ['ip', 'none'],
        ['ip-name', 'none']) {
        my ($path, $name) = @$case;
        my $response = $client->get("/$path/");
        is($response->status, 200, "$path: accepted");
        is($response->header('X-Name'), $name, "SNI: $name");
        is($response->header('X-Host'), $t->host, 'Host is a matter of its own');
    }
    for my $path (qw(deep other address ip-other)) {
        is_refused($client->get("/$path/"), 'tls_certificate_error', $path);
    }
    is($client->get('/unix/')->status, 200, 'over a Unix socket');
    is(($unix->connections)[0]{sni}, 'localhost', 'with the name of the URL');
};

behaviour 'a client certificate is shown where one is set, and only there', sub {
    my ($t) = @_;
    my $certs = $t->certs;
    my $ca = 'ca=' . $certs->ca_file;
    my %client = map { $_ => $certs->client($_) } qw(one two);
    my $both = $t->file('both.pem', join '', map { do { local (@ARGV, $/) = $_; <> } }
        $client{two}{cert}, $client{two}{key});
    my $foreign = $certs->client('foreign', untrusted => 1);
    for my $version ('TLSv1_2', 'TLSv1_3') {
        my $path = lc $version;
        my $up = $t->{$path} = telling($t, client_ca => 1, SSL_version => $version);
        my $url = $up->url;
        $t->config(route("/$path/none/", $url, $ca),
            route("/$path/one/", $url, $ca, "cert=$client{one}{cert}", "key=$client{one}{key}"),
            route("/$path/two/", $url, $ca, "cert=$both"),
            route("/$path/foreign/", $url, $ca, "cert=$foreign->{cert}", "key=$foreign->{key}"));
    }
    my $open = telling($t, client_optional => 1);
    $t->config(route('/open/', $open->url, $ca));
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    for my $path ('tlsv1_2', 'tlsv1_3') {
        my %seen;
        for my $name (qw(one two one two two one)) {
            my $response = $client->get("/$path/$name/");
            is($response->status, 200, "$path, $name: accepted");
            is($response->header('X-Client'), $name, 'as who it is');
            $seen{ $response->header('X-Connection') }{$name} = 1;
        }
        is(scalar(grep { keys %$_ > 1 } values %seen), 0, 'no connection has served both');
        for my $name (qw(none foreign)) {
            my $before = $t->{$path}->requests;
            is_refused($client->get("/$path/$name/"), 'tls_protocol_error', "$path, $name");
            is(scalar $t->{$path}->requests, $before, 'no request got through');
        }
    }
    is($client->get('/open/')->header('X-Client'), 'none', 'none is shown without being set');
};

behaviour 'protocols= bounds the versions', sub {
    my ($t) = @_;
    my $ca = 'ca=' . $t->certs->ca_file;
    my %up = (
        old => telling($t, SSL_version => 'TLSv1_2'), new => telling($t, SSL_version => 'TLSv1_3'),
        both => telling($t),
    );
    for my $name (sort keys %up) {
        my $url = $up{$name}->url;
        $t->config(route("/$name/", $url, $ca), route("/$name-2/", $url, $ca, 'protocols=TLSv1.2'),
            route("/$name-3/", $url, $ca, 'protocols=TLSv1.3'),
            route("/$name-23/", $url, $ca, 'protocols=TLSv1.2,TLSv1.3'),
            route("/$name-plus/", $url, $ca, 'protocols=TLSv1.2+'));
    }
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    my %expected = (
        'old'  => 2, 'old-2'  => 2, 'old-3'  => 0, 'old-23'  => 2, 'old-plus'  => 2,
        'new'  => 3, 'new-2'  => 0, 'new-3'  => 3, 'new-23'  => 3, 'new-plus'  => 3,
        'both' => 3, 'both-2' => 2, 'both-3' => 3, 'both-23' => 3, 'both-plus' => 3,
    );
    for my $path (sort keys %expected) {
        my $response = $client->get("/$path/");
        if ($expected{$path}) {
            is($response->header('X-Version'), "TLSv1_$expected{$path}", $path);
        }
        else {
            is_refused($response, 'tls_protocol_error', $path);
        }
    }
};

behaviour 'sessions are resumed, but by nobody else', sub {
    my ($t) = @_;
    $t->mpm_config(StartServers => 1, ServerLimit => 1, MaxRequestWorkers => 1,
        MinSpareServers => 1, MaxSpareServers => 2) if $t->mpm eq 'prefork';
    my $ca = 'ca=' . $t->certs->ca_file;
    $t->config('RProxyKeepAlive max=0');
    for my $version ('TLSv1_2', 'TLSv1_3') {
        my $url = telling($t, names => ['a.test', 'b.test'], SSL_version => $version)->url;
        my $path = lc $version;
        $t->config(route("/$path/a/", $url, $ca, 'name=a.test'),
            route("/$path/b/", $url, $ca, 'name=b.test'),
            route("/$path/off/", $url, 'verify=off', 'name=c.test'),
            route("/$path/c/", $url, $ca, 'name=c.test'));
    }
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    my ($connections, %last) = (0);
    my $resumed = sub {
        my ($path) = @_;
        my $response = $client->get($path);
        return $response->header('Proxy-Status') if $response->status != 200;
        # A new connection each time: what is resumed is the session.
        my ($version) = split m{/}, substr $path, 1;
        cmp_ok($response->header('X-Connection'), '>', $last{$version} // 0, "$path: new");
        $last{$version} = $response->header('X-Connection');
        return $response->header('X-Resumed');
    };
    for my $path ('/tlsv1_2', '/tlsv1_3') {
        is($resumed->("$path/a/"), 'no', 'the first');
        is($resumed->("$path/a/"), 'yes', 'resumed') for 1 .. 3;
        is($resumed->("$path/b/"), 'no', 'another name begins anew');
        is($resumed->("$path/b/"), 'yes', 'and is resumed');
        is($resumed->("$path/off/"), 'no', 'without verification: anew');
        is($resumed->("$path/off/"), 'yes', 'and resumed');
        like($resumed->("$path/c/"), qr/tls_certificate_error/, 'which verifies nothing');
        is($resumed->("$path/a/"), 'yes', 'the first one is still resumed');
    }
};

behaviour 'pools are not shared across names or verification', sub {
    my ($t) = @_;
    my $ca = 'ca=' . $t->certs->ca_file;
    my $up = telling($t, names => ['a.test', 'b.test']);
    my $url = $up->url;
    $t->config(route('/a/', $url, $ca, 'name=a.test'), route('/b/', $url, $ca, 'name=b.test'),
        route('/a-off/', $url, 'verify=off', 'name=a.test'),
        route('/a-again/', $url, $ca, 'name=A.test'),
        route('/c-off/', $url, 'verify=off', 'name=c.test'),
        route('/c/', $url, $ca, 'name=c.test'));
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    my %seen;
    for my $path (map { $_, $_ } qw(a b c-off a-off b a-again c-off a)) {
        my $response = $client->get("/$path/");
        my ($name) = $path =~ /^(\w)/;
        is($response->header('X-Name'), "$name.test", "$path: its own name");
        my $settings = $path =~ /off/ ? "$name-off" : $name;
        $seen{ $response->header('X-Connection') }{$settings} = 1;
    }
    is(scalar(grep { keys %$_ > 1 } values %seen), 0, 'each connection has served one of them');
    is_refused($client->get('/c/'), 'tls_certificate_error', 'an idle one that is not verified');
};

behaviour 'an answer that is cut off without close_notify is broken', sub {
    my ($t) = @_;
    my %head = (
        'close'   => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe beginning",
        'old'     => "HTTP/1.0 200 OK\r\n\r\nthe beginning",
        'length'  => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning",
        'chunked' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\nthe beginning\r\n",
    );
    my %up;
    for my $version ('TLSv1_2', 'TLSv1_3') {
        my $up = $up{ lc $version } = $t->upstream(tls => { SSL_version => $version });
        $up->on_connection(sub {
            my ($conn) = @_;
            while (my $request = $conn->read_request) {
                my ($end, $kind) = $request->target =~ m{^/(\w+)/(\w+)$};
                if ($end eq 'whole') {
                    $conn->respond(200, ['X-Connection' => $conn->number], 'fine');
                    next;
                }
                $conn->write($head{$kind}) if $head{$kind};
                $conn->wait_for('end-' . $conn->number) if $end eq 'cut' && $head{$kind};
                return $end eq 'cut' ? $conn->cut : $conn->close;
            }
        });
        my $path = lc $version;
        $t->config(route("/$path/", $up->url, 'ca=' . $t->certs->ca_file));
    }
    $t->config('RProxyRetry on=off');
    $t->config($t->rule_for_the_rest);
    $t->start;
    for my $path (sort keys %up) {
        for my $kind (sort keys %head) {
            my $exchange = $t->begin('GET', "/$path/cut/$kind");
            is($exchange->read_exact(13), 'the beginning', "$path, $kind: begun");
            $up{$path}->signal('end-' . $up{$path}->connections);
            my $response = $exchange->response;
            ok(!$response->complete, 'cut: seen broken');
            $exchange->close;
        }
        for my $kind ('close', 'old') {
            my $response = $t->get("/$path/end/$kind");
            is($response->body, 'the beginning', "$path, $kind: with close_notify");
            ok($response->complete, 'complete');
        }
        my $response = $t->get("/$path/cut/nothing");
        is($response->status, 502, "$path: cut before an answer");
        like($response->header('Proxy-Status'), qr/connection_terminated/, 'says so');
        is($t->get("/$path/whole/x")->body, 'fine', 'the next request is answered');
    }
};

behaviour 'plain text ahead of the handshake or behind it is no answer', sub {
    my ($t) = @_;
    my $poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    my $certificate = $t->certs->server(['IP:127.0.0.1']);
    my $context = IO::Socket::SSL::SSL_Context->new(SSL_server => 1,
        SSL_cert_file => $certificate->{cert}, SSL_key_file => $certificate->{key});
    my $raw_write = sub {
        my ($conn) = @_;
        return syswrite $conn->socket, $poison;
    };
    my %handlers = (
        # Plain text and nothing else.
        plain => sub {
            my ($conn) = @_;
            $conn->write($poison);
            $conn->wait_closed;
        },
        # Plain text, then a server that goes on as if nothing had been.
        ahead => sub {
            my ($conn) = @_;
            $conn->write($poison);
            $conn->accept_tls($context) or return;
            $conn->read_request or return;
            $conn->respond(200, [], 'fine');
        },
        # Plain text as soon as the client has said hello.
        hello => sub {
            my ($conn) = @_;
            $conn->read_some;
            $conn->write($poison);
            $conn->wait_closed;
        },
        # Plain text between the handshake and the answer.
        behind => sub {
            my ($conn) = @_;
            $conn->accept_tls($context) or return;
            $conn->read_request or return;
            POSIX::write($conn->socket->fileno, $poison, length $poison);
            $conn->respond(200, [], 'fine');
        },
    );
    my %up = map { $_ => $t->upstream($handlers{$_}) } sort keys %handlers;
    for my $name (sort keys %up) {
        my $url = $up{$name}->url('https');
        $t->config(route("/$name/", $url, 'ca=' . $t->certs->ca_file),
            route("/$name-off/", $url, 'verify=off'));
    }
    $t->config('RProxyRetry tries=1');
    $t->config($t->rule_for_the_rest);
    $t->start;
    for my $name (sort keys %up) {
        for my $path ($name, "$name-off") {
            my $response = $t->get("/$path/");
            is_refused($response, 'tls_protocol_error', $path);
            unlike($response->body, qr/poison|fine/, 'nothing of the upstream');
        }
    }
    ok($t->wait_log(qr/RP0108: /), 'the log names the reason');
};

behaviour 'large bodies travel both ways', sub {
    my ($t) = @_;
    my $body = join '', map { pack 'N', $_ * 2_654_435_761 % 2**32 } 1 .. 3 * MIB / 4;
    for my $version ('TLSv1_2', 'TLSv1_3') {
        my $up = $t->upstream(record => 0, tls => { SSL_version => $version });
        $up->on_connection(sub {
            my ($conn) = @_;
            while (my $request = $conn->read_head) {
                if ($request->target =~ /stream/) {
                    # Both directions at once: each piece goes back as it comes.
                    $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
                    while ((my $piece = $conn->read_body_piece) ne '') {
                        $conn->write_chunk($piece);
                    }
                    $conn->write_last_chunk;
                    next;
                }
                $conn->read_body;
                $conn->respond(200, ['X-Sum' => md5_hex($request->body)], $request->body);
            }
        });
        my $path = lc $version;
        $t->config(route("/$path/", $up->url, 'ca=' . $t->certs->ca_file));
    }
    $t->config($t->rule_for_the_rest);
    $t->start;
    my $sum = md5_hex($body);
    for my $path ('tlsv1_2', 'tlsv1_3') {
        my $client = $t->client;
        for my $chunked (0, 1) {
            my $response = $client->request('PUT', "/$path/echo",
                { body => $body, chunked => $chunked });
            is($response->header('X-Sum'), $sum, "$path: arrived" . ($chunked && ', chunked'));
            is(md5_hex($response->body), $sum, 'came back');
            ok($response->complete, 'complete');
        }
        my $small = substr $body, 0, 200_000;
        my $response = $client->request('PUT', "/$path/stream", { body => $small });
        is(md5_hex($response->body), md5_hex($small), 'streamed both ways at once');
        ok($response->complete, 'complete');
    }
};

behaviour 'a WebSocket over TLS', sub {
    my ($t) = @_;
    my $up = $t->upstream(tls => 1, sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
        $conn->notify('closed');
    });
    $t->server_config(RProxy::Tunnel->directives($t));
    $t->config(route('/', $up->url, 'ca=' . $t->certs->ca_file));
    $t->start;
    my $tunnel = RProxy::Tunnel->open($t, '/chat');
    my $socket = RProxy::WebSocket->over($tunnel);
    for my $size (5, 20_000, 300_000) {
        my $text = substr 'message ' x ($size / 8 + 1), 0, $size;
        $socket->send_text($text);
        ok($socket->read_text eq $text, "$size bytes and back");
    }
    $socket->send_close;
    is(($socket->read_frame)[0], RProxy::WebSocket::CLOSE, 'closed');
    $up->wait_event('closed');
    $tunnel->close;
};

behaviour 'files that are missing or do not fit stop the start', lanes => ['event'], sub {
    my ($t) = @_;
    my $certs = $t->certs;
    my ($one, $two) = map { $certs->client($_) } qw(one two);
    my $junk = $t->file('junk.pem',
        "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n");
    my $locked = $t->file('locked.key', Net::SSLeay::PEM_get_string_PrivateKey($two->{pkey},
            'secret', Net::SSLeay::EVP_get_cipherbyname('AES-128-CBC')));
    my $missing = $t->directory . '/nowhere.pem';
    for my $case (
        ["ca=$missing", qr/RP0226.*\Q$missing\E/],
        ["ca=$junk", qr/RP0226.*\Q$junk\E/],
        ["cert=$missing", qr/RP0220.*\Q$missing\E/],
        ["cert=$one->{cert}", qr/RP0223.*\Q$one->{cert}\E/],
        ["cert=$one->{cert} key=$missing", qr/RP0221.*\Q$missing\E/],
        ["cert=$one->{cert} key=$two->{key}", qr/RP0224.*\Q$two->{key}\E/],
        ["cert=$two->{cert} key=$locked", qr/RP0222.*\Q$locked\E/],
        ["cert=$junk key=$one->{key}", qr/RP0220.*\Q$junk\E/],
        ["key=$one->{key}", qr/RP0216/],
        ["verify=off ca=$missing", qr/RP0215/],
        ['ca=', qr/RP0210/],
        ['protocols=SSLv3', qr/RP0214/],
        ['ciphers=nonsense', qr/RP0227/],
        ['name=a..b', qr/RP0213/],
    ) {
        my ($settings, $message) = @$case;
        $t->clear_config;
        $t->config("RProxyPass / https://127.0.0.1:$$/", "RProxyTLS $settings");
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0, "RProxyTLS $settings");
        like($output, $message, 'names the fault');
        my ($line, $file) = ($t->config_line(qr/^RProxyTLS/), $t->conf_file);
        like($output, qr/\bline $line\b.*\Q$file\E|\Q$file\E:$line\b/s, 'and the line');
    }
    $t->clear_config;
    $t->config('RProxyPass / https://127.0.0.1:1/', "RProxyTLS ca=@{[ $certs->ca_file ]} "
            . "cert=$one->{cert} key=$one->{key} name=a.test protocols=TLSv1.2+");
    my ($code, $output) = $t->httpd_test;
    is($code, 0, 'what fits starts') or diag($output);
};

done_testing;
