#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Settings of pools and of single members: what is nearest to the upstream counts, key by key.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Directives;

# The same with every MPM: the sanitized run, which is slow, leaves one out.
without_lanes 'prefork' if $ENV{RPROXY_SANITIZED};

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);
my @event = (lanes => ['event']);

sub pool {
    my ($name, @lines) = @_;
    return ("<RProxyBalancer $name>", @lines, '</RProxyBalancer>',
        "RProxyPass /$name balancer://$name/");
}

sub member {
    my ($up, @lines) = @_;
    return ('<RProxyMember ' . $up->url . '>', @lines, '</RProxyMember>');
}

sub line { my ($up, @keys) = @_; return join ' ', 'RProxyMember', $up->url, @keys }
sub location { my ($path, @lines) = @_; return ("<Location $path>", @lines, '</Location>') }

sub start {
    my ($t, @lines) = @_;
    $t->config(@lines, $t->rule_for_the_rest);
    return $t->start;
}

# An upstream that answers when it is told to, if at all.
sub silent {
    my ($t) = @_;
    return $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        $conn->notify('asked');
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
            if $request->target =~ /begun/;
        return $conn->wait_closed(20) unless $request->target =~ /told/;
        $conn->wait_for('go');
        $conn->respond(200, [Connection => 'close'], 'fine');
    });
}

behaviour 'timeouts: member, pool, location, server', @lanes, sub {
    my ($t) = @_;
    my $up = silent($t);
    $t->access_format('%U %>s %{rproxy-error}e');
    my ($long, $short) = map { "RProxyTimeout first-byte=$_" } '10min', '500ms';
    start($t, 'RProxyTimeout first-byte=10min idle=10min',
        pool('pool', line($up), $short),
        pool('member', member($up, $short), $long), location('/member', $long),
        pool('longer', member($up, $long), $short),
        pool('total', line($up), 'RProxyTimeout total=500ms'),
        pool('keys', member($up, 'RProxyTimeout connect=7s'), 'RProxyTimeout first-byte=8min'),
        location('/keys', 'RProxyTimeout idle=500ms first-byte=500ms'),
        pool('line', line($up, 'timeout=500ms connectiontimeout=2')));
    my $longer = $t->begin('GET', '/longer/told');
    $up->wait_event('asked');
    my %reason = (map({ $_ => 'first-byte' } qw(pool member line)), total => 'total');
    my @late = sort keys %reason;
    my @paths = (map({ "/$_/" } @late), '/keys/begun');
    my @responses = $t->parallel(scalar @paths, sub { $t->get($paths[$_[0]]) });
    for my $name (@late) {
        is((shift @responses)->status, 504, $name);
        $t->wait_access_log(qr{^/$name/ 504 $reason{$name}-timeout$});
    }
    is($responses[0]->status, 200, 'begun within first-byte= of the pool');
    ok(!$responses[0]->complete, 'broken off');
    $t->wait_access_log(qr{^/keys/begun 200 idle-timeout$});
    $up->signal('go');
    is($longer->response->status, 200, 'the member waits longer than its pool');
    $longer->close;
};

behaviour 'retries of the pool', @lanes, sub {
    my ($t) = @_;
    my $up = $t->upstream->reply_with(503, [], 'no');
    $t->access_format('%m %U %{rproxy-attempts}e %{rproxy-lane}e');
    start($t, 'RProxyRetry tries=1', 'RProxyPass /plain ' . $up->url,
        pool('pool', line($up), 'RProxyRetry tries=3 on=503'),
        pool('any', line($up), 'RProxyRetry tries=3 on=503'),
        location('/any', 'RProxyRetry methods=all'),
        pool('none', member($up, 'RProxyTimeout idle=50s')));
    my $lane = $t->is_engine ? 'engine' : 'pipeline';
    for my $case (['GET', '/pool/', 3], ['POST', '/pool/', 1], ['POST', '/any/', 3],
        ['GET', '/none/', 1], ['GET', '/plain/', 1]) {
        my ($method, $path, $attempts) = @$case;
        my $body = $method eq 'POST' ? 'x' : undef;
        is($t->request($method, $path, { body => $body })->status, 503, "$method $path");
        $t->wait_access_log(qr{^$method $path $attempts $lane$});
    }
};

behaviour 'TLS of the pool and of members', @lanes, sub {
    my ($t) = @_;
    my @up = ($t->upstream, map { $t->upstream(tls => { names => [$_] }) } 'one.test', 'two.test');
    $_->on_request(sub { return [200, ['X-Name' => $_[1]->sni // 'none'], 'x'] }) for @up;
    my $pool_tls = 'RProxyTLS name=two.test ca=' . $t->certs->ca_file;
    my $wrong = 'RProxyTLS verify=on name=elsewhere.test';
    start($t, $wrong, 'RProxyPass /plain ' . $up[1]->url,
        pool('app', line($up[0]), member($up[1], 'RProxyTLS name=one.test'), line($up[2]),
            $pool_tls), location('/app', $wrong),
        pool('other', member($up[1], $pool_tls)));
    my %names;
    $names{ $t->get('/app/')->header('X-Name') }++ for 1 .. 6;
    is_deeply(\%names, { none => 2, 'one.test' => 2, 'two.test' => 2 }, 'each by its name');
    for my $path ('/plain/', '/other/') {
        my $response = $t->get($path);
        is($response->status, 502, "$path: not verified");
        like($response->header('Proxy-Status'), qr/error=tls_certificate_error/, 'says so');
    }
    is($t->get('/app/')->status, 200, 'all the same');
};

behaviour 'keep-alive by member', @lanes, sub {
    my ($t) = @_;
    my @up = map { $t->upstream } 0 .. 3;
    start($t, 'RProxyKeepAlive max=0',
        pool('app', line($up[0]), member($up[1], 'RProxyKeepAlive max=0'),
            line($up[2], 'disablereuse=on'), member($up[3], 'RProxyKeepAlive idle=50s'),
            'RProxyKeepAlive max=5'));
    my $client = $t->client;
    is($client->get('/app/')->status, 200, 'answered') for 1 .. 12;
    is_deeply([map { scalar $_->connections } @up], [1, 3, 3, 1], 'connections of each');
};

behaviour 'what members are told', @lanes, sub {
    my ($t) = @_;
    my @up = map { $t->upstream } 0 .. 2;
    $_->on_request(sub {
        my ($request) = @_;
        my @told = map { $_ => $request->header($_) // 'none' } 'X-Forwarded-Proto', 'Forwarded';
        return [302, [Location => 'http://' . $request->header('Host') . '/there',
                'X-Host' => $request->header('Host'), @told], ''];
    }) for @up;
    start($t, pool('app', line($up[0]), member($up[1], 'RProxyPreserveHost off'),
            member($up[2], 'RProxyForwarded rfc7239'), 'RProxyForwarded off'),
        location('/app', 'RProxyForwarded both'));
    my $host = $t->host;
    my @authorities = map { m{//(.*)} } map { $_->url } @up;
    for my $i (0 .. 2) {
        my $response = $t->get('/app/');
        is($response->header('X-Host'), $i == 1 ? $authorities[1] : $host, "member $i: Host");
        is($response->header('X-Forwarded-Proto'), 'none', 'X-Forwarded-Proto');
        like($response->header('Forwarded'), $i == 2 ? qr/^for=127/ : qr/^none$/, 'Forwarded');
        is($response->header('Location'), $t->scheme . "://$host/app/there", 'mapped back');
    }
};

behaviour 'routes of sections and .htaccess files', lanes => [qw(event prefork)], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->on_request(sub { return [200, ['X-Host' => $_[0]->header('Host')], 'x'] });
    $t->file('htdocs/sub/.htaccess', "RProxyPass balancer://app/\nRProxyPreserveHost on\n");
    start($t, 'RProxyAllowTarget balancer://app/', pool('app', line($up), 'RProxyPreserveHost off'),
        '<If "%{HTTP:X-Go} == \'yes\'">', 'RProxyPass / balancer://app/', '</If>');
    my ($authority) = $up->url =~ m{//(.*)};
    is($t->get('/sub/x')->header('X-Host'), $authority, '.htaccess');
    my $if = $t->request('GET', '/x', { headers => ['X-Go' => 'yes'] });
    is($if->header('X-Host'), $authority, '<If>');
};

# ---- what is refused --------------------------------------------------------------------------

my $A = 'http://10.0.0.1:8080';

sub in_pool { return ['<RProxyBalancer app>', @_, '</RProxyBalancer>'] }
sub in_member { return in_pool("<RProxyMember $A>", @_, '</RProxyMember>') }

# Message; the line that is named matches it too, unless another one is given.
sub refused {
    my ($t, $lines, $message, $at) = @_;
    return refused_in($t, 'server_config', $lines, $message, $at);
}

behaviour 'what may stand in pools and members', @event, sub {
    my ($t) = @_;
    my @both = ('RProxyTimeout connect=1s', 'RProxyKeepAlive max=3', 'RProxyTLS verify=off',
        'RProxyPreserveHost off', 'RProxyForwarded off');
    accepted_in($t, 'server_config', @{ in_pool("RProxyMember $A", @both, 'RProxyRetry tries=3',
            "<RProxyMember $A/x weight=2 backup>", @both, '</RProxyMember>',
            "<RProxyMember $A/y>", '</RProxyMember>') });
    refused($t, in_member('RProxyRetry tries=3'),
        qr/RProxyRetry \(\S+:\d+\) can't differ by member, .*; move it out of <RProxyMember>, into/,
        qr/<RProxyMember/);
    refused($t, in_member('RProxyTimeout total=1s'),
        qr/total= is for the whole request, .*; move it out/, qr/total=1s/);
    refused($t, in_member('RProxyMethod first'),
        qr/RProxyMethod \S+ is not for <RProxyMember>, which takes .* and RProxyTimeout; move/,
        qr/<RProxyMember/);
    refused($t, in_member('RProxyUpgrade off'), qr/RProxyUpgrade \S+ is not for <RProxyMember>/,
        qr/<RProxyMember/);
    refused($t, in_pool("RProxyMember $A", 'RProxyUpgrade off'),
        qr/is not for <RProxyBalancer>, which takes .*RProxyMember, .*RProxyRetry, /,
        qr/<RProxyBalancer/);
    refused($t, in_pool("RProxyMember $A", 'RProxyTimeout idle=1s', 'RProxyTimeout connect=1s'),
        qr/RProxyTimeout stands twice in one section/, qr/idle=1s/);
    refused($t, in_member('RProxyTimeout idle=x'), qr/write a time/, qr/idle=x/);
    refused($t, ["<RProxyMember $A>", '</RProxyMember>'], qr/describes a pool; move it between/,
        qr/<RProxyMember/);
    refused($t, in_pool("<RProxyMember $A", '</RProxyMember>'), qr/<RProxyMember has no ">"/,
        qr/<RProxyMember/);
    refused($t, in_pool('<RProxyMember>', '</RProxyMember>'), qr/needs the URL/, qr/<RProxyMember/);
    refused($t, in_member('RProxyTLS ca=/nowhere/ca.pem'), qr/RP0\d+: .*\/nowhere\/ca\.pem/,
        qr/nowhere/);
};

behaviour 'parameters of mod_proxy', @event, sub {
    my ($t) = @_;
    accepted_in($t, 'server_config', @{ in_pool("RProxyMember $A connectiontimeout=5 ttl=60 "
                . 'timeout=500ms loadfactor=2 enablereuse=on KeepAlive=On disablereuse=off') });
    my %refused = (
        'retry=30' => qr/"retry=30" is written as in mod_proxy; write RProxyOutlier eject=/,
        'status=+H' => qr/backup for H/,
        'lbset=1' => qr/write backup/,
        'ping=1' => qr/a connection that proves dead is replaced/,
        'smax=10' => qr/write RProxyKeepAlive max=/,
        'acquire=100' => qr/write RProxyQueue/,
        'hcmethod=GET' => qr/write RProxyHealthCheck/,
        'timeout=x' => qr/"timeout=x": write a time/,
        'ttl=1 ttl=2' => qr/ttl= stands twice/,
        'keepalive=off' => qr/TCP keep-alive is always on/,
        'enablereuse=maybe' => qr/write on or off/,
        'disablereuse=on ttl=5' => qr/max=0 keeps no connection/,
    );
    refused($t, in_pool("RProxyMember $A $_"), $refused{$_}, qr/^RProxyMember \Q$A $_\E$/)
        for sort keys %refused;
    my @twice = ("<RProxyMember $A timeout=5>", 'RProxyTimeout connect=1s', '</RProxyMember>');
    refused($t, in_pool(@twice), qr/RProxyTimeout stands twice/, qr/<RProxyMember/);
};

done_testing;
