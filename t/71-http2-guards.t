#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/2 of the engine where the pipeline takes some requests: pages about the server itself, which
# clients have to ask for in HTTP/1.1, and what SetEnvIf sets for HTTP/1.x.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

my @tls = (lanes => ['engine-h2']);
my $authority = 'www.example.test';

# Everything but /server-status goes to the upstream, which echoes.
sub with_status_page {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->echo;
    $t->extra_modules('status');
    $t->access_format('%H %m %U %>s %b');
    $t->server_config('<Location /server-status>', 'SetHandler server-status', 'Require local',
        '</Location>');
    $t->config(@lines, 'RProxyPass /server-status !', 'RProxyPass / ' . $up->url . '/');
    $t->start;
    return $up;
}

behaviour 'a page about the server itself is to be asked for in HTTP/1.1', @tls, sub {
    my ($t) = @_;
    my $up = with_status_page($t);
    my $h2 = $t->h2_client;
    my $required = 'RST_STREAM HTTP_1_1_REQUIRED';
    my $held = $h2->begin('POST', '/upload', { stream => 1 });
    for ('/server-status', '/server-status?auto', '//server%2Dstatus/', '/SERVER-STATUS',
        '/server-status%2Fx') {
        is($h2->get($_)->error, $required, $_);
    }
    is($h2->request('POST', '/server-status', { body => 'x' x 100_000 })->error, $required,
        'with a body');
    for ('/', '/server-statuses', '/x/server-status', '/@scope%2Fname') {
        is($h2->get($_)->status, '200', "$_ in HTTP/2");
    }
    $held->write('hello');
    $held->finish;
    is($held->response->body, 'hello', 'other streams go on');
    is($t->raw_client->request('GET', '/server-status?auto')->status, '200', 'HTTP/1.1 gets it');
    is_deeply([grep { /status(?:\?|$)/i } map { $_->target } $up->requests], ['/x/server-status'],
        'the upstream sees nothing of it');
};

behaviour 'the log has both of the client\'s requests', @tls, sub {
    my ($t) = @_;
    with_status_page($t);
    $t->h2_client->get('/server-status');
    is($t->wait_access_log(qr{^HTTP/2\.0 }), 'HTTP/2.0 GET /server-status 421 -',
        'a misdirected one');
    $t->raw_client->request('GET', '/server-status');
    like($t->wait_access_log(qr{^HTTP/1\.1 }), qr{ GET /server-status 200 \d+$}, 'the page');
    my $told = quotemeta "RP0313: the engine serves HTTP/2 clients of $authority; in HTTP/1.1 ";
    like($t->error_log, qr{$told/server-status \(\S+:\d+\)$}m, 'the start has told it');
};

behaviour 'clients that go on asking lose their connection', @tls, sub {
    my ($t) = @_;
    with_status_page($t);
    my $h2 = $t->h2_client;
    my $outcome;
    for (1 .. 2000) {
        $outcome = $h2->get('/server-status')->error;
        last if $outcome !~ /HTTP_1_1_REQUIRED/;
    }
    like($outcome, qr/ENHANCE_YOUR_CALM/, 'as those whose requests are malformed');
    is($t->h2_client->get('/')->status, '200', 'others don\'t notice');
};

behaviour 'curl comes back with HTTP/1.1 by itself', @tls, sub {
    my ($t) = @_;
    with_status_page($t);
    my @command = ('curl', '-sS', '--http2', '--connect-to',
        "$authority:443:127.0.0.1:" . $t->port, '--cacert', $t->certs->ca_file, '-w',
        '%{http_version} %{http_code} %{num_connects}\n', '-o', '/dev/null');
    my $asked = sub {
        my ($path) = @_;
        my $quoted = join ' ', map { "'$_'" } @command, "https://$authority$path";
        return scalar qx($quoted 2>&1);
    };
    is($asked->('/x'), "2 200 1\n", 'what the engine serves');
    is($asked->('/server-status'), "1.1 200 2\n", 'the page about the server');
};

behaviour 'old clients of HTTP/1.x are served in HTTP/2 like all others', @tls, sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $t->extra_modules('setenvif');
    $t->access_format('%H %{rproxy-lane}e');
    $t->config('BrowserMatch "Mozilla/2" nokeepalive',
        'BrowserMatch "MSIE 4\.0b2;" nokeepalive downgrade-1.0 force-response-1.0',
        'RProxyPass / ' . $up->url . '/');
    $t->start;
    my $h2 = $t->h2_client;
    for my $agent ('Mozilla/2.0', 'Mozilla/4.0 (MSIE 4.0b2; Windows)') {
        is($h2->request('GET', '/', { headers => ['user-agent' => $agent] })->status, '200',
            "HTTP/2, $agent");
        my $response = $t->raw_client->request('GET', '/', { headers => ['User-Agent' => $agent] });
        is($response->header('Connection'), 'close', "HTTP/1.1, $agent");
    }
    wait_until('four lines in the log', undef, sub { $t->access_log >= 4 });
    my %lanes = map { $_ => 1 } $t->access_log;
    is_deeply([sort keys %lanes], ['HTTP/1.1 pipeline', 'HTTP/2.0 engine'], 'each in its lane');
};

done_testing;
