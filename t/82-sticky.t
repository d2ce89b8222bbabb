#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Sessions: RProxySticky in all its forms. Upstreams say in X-Member who they are, and in X-Cookie
# which cookies they got; what the query of a request names they answer with.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Directives;
use RProxy::Pools qw(spread);
use RProxy::Test;

# The same with every MPM: the sanitized run, which is slow, leaves one out.
without_lanes 'prefork' if $ENV{RPROXY_SANITIZED};

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);
my @two = (lanes => [qw(event engine)]);

# What a query asks for: ?Cache-Control=private&Set-Cookie=a%3Db&status=500
sub members {
    my ($t, $count) = @_;
    return map {
        my $number = $_;
        $t->upstream->on_request(sub {
            my ($request) = @_;
            my ($query) = $request->target =~ /\?(.*)/;
            my %asked = map { split /=/ } split /&/, $query // '';
            s/%(..)/chr hex $1/ge for values %asked;
            my $status = delete $asked{status} // 200;
            my @got = $request->headers_all('Cookie');
            return [$status, ['X-Member' => $number, @got ? ('X-Cookie' => join ' | ', @got) : (),
                    %asked], 'x'];
        });
    } 0 .. $count - 1;
}

# A pool with all members, at /NAME; keys stand behind their URLs.
sub pool {
    my ($name, $up, $keys, @lines) = @_;
    my $i = 0;
    return ("<RProxyBalancer $name>",
        (map { 'RProxyMember ' . $_->url . ' ' . ($keys->[$i++] // '') } @$up), @lines,
        '</RProxyBalancer>', "RProxyPass /$name balancer://$name/");
}

sub start {
    my ($t, @lines) = @_;
    $t->server_config(@lines, $t->rule_for_the_rest);
    return $t->start;
}

sub restarted {
    my ($t, @lines) = @_;
    $t->clear_config;
    $t->server_config(@lines, $t->rule_for_the_rest);
    return $t->graceful;
}

# "NAME=VALUE" of what a response sets, '' if it sets nothing.
sub cookie {
    my ($response) = @_;
    return ($response->header('Set-Cookie') // '') =~ s/;.*//r;
}

behaviour 'the cookie of the proxy keeps a client at its member', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, pool('a', \@up, [], 'RProxySticky cookie=SRV'),
        pool('b', \@up, [], 'RProxySticky cookie=SRV ttl=1h path=/b domain=example.test secure '
            . 'httponly=off samesite=strict'),
        'RProxyErrorOverride 500');
    my $first = $t->get('/a/');
    my $member = $first->header('X-Member');
    my $cookie = cookie($first);
    my $secure = $t->is_tls ? '; Secure' : '';
    like($first->header('Set-Cookie'),
        qr{^SRV=[\w-]{42}; Path=/; HttpOnly; SameSite=Lax$secure$}, 'what is set');
    is($first->header('Cache-Control'), 'private', 'for one client');
    my @results = $t->parallel(3, sub {
        return [map { my $r = $t->get('/a/', Cookie => "x=y; $cookie");
                [map { $r->header($_) // '-' } qw(X-Member X-Cookie Set-Cookie Cache-Control)] }
            1 .. 4];
    });
    is_deeply([map { @$_ } @results], [([$member, 'x=y', '-', '-']) x 12],
        'the same member, from all children; the cookie is not its business and not set again');
    is($t->get('/a/', Cookie => $cookie)->header('X-Cookie'), undef, 'no empty field is left');
    like($t->get('/b/', Cookie => $cookie)->header('Set-Cookie'),
        qr{^SRV=[\w-]{42}; Path=/b; Domain=example\.test; Max-Age=3600; SameSite=Strict; Secure$},
        'another pool does not know it, and has other attributes');
    for my $forged ('SRV=x', 'SRV=', 'SRV=' . 'A' x 42, $cookie =~ s/(.)$/$1 eq 'A' ? 'B' : 'A'/er,
        $cookie =~ s/=\K(.)(.)/$2$1/r . 'x', "${cookie}A") {
        isnt(cookie($t->get('/a/', Cookie => $forged)), '', "forged: $forged");
    }
    is($t->get('/a/', Cookie => "SRV=x; $cookie")->header('X-Member'), $member,
        'a wrong one in front of it is no matter');
    is($t->get('/a/?Cache-Control=max-age%3D9')->header('Set-Cookie'), undef,
        'none in what caches may give to others');
    my $stored = $t->get('/a/?Cache-Control=no-store');
    ok(cookie($stored) && $stored->header('Cache-Control') eq 'no-store', 'one in what they may not');
    my $replaced = $t->get('/a/?status=500');
    ok(cookie($replaced) && !$replaced->header('X-Member'), 'it goes with a page of the proxy');
    is($replaced->header('Cache-Control'), 'private', 'which is for one client, too');
    is($t->get('/a/?status=404')->status, 404, 'errors of a member stay');
};

behaviour 'restarts, drained members, members that are down', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    my $pools = sub {
        my (@keys) = @_;
        return map { pool($_->[0], \@up, \@keys, "RProxySticky cookie=S down=$_->[1]",
            'RProxyOutlier errors=1 eject=1min') } ['r', 'repin'], ['t', 'temporary'], ['f', 'fail'];
    };
    start($t, $pools->());
    my $old = $t->get('/r/');
    my ($member, %cookie) = ($old->header('X-Member'), r => cookie($old));
    for my $name (qw(t f)) {
        my $response;
        do { $response = $t->get("/$name/") } while $response->header('X-Member') != $member;
        $cookie{$name} = cookie($response);
    }
    my $still = sub {
        is_deeply(spread($t, 2, "/$_/", Cookie => $cookie{$_}), { $member => 2 }, "$_[0]: $_")
            for qw(r t f);
    };
    restarted($t, $pools->(map { $_ == $member ? 'state=drain' : '' } 0 .. 2));
    $still->('a drained member keeps its sessions over a graceful restart');
    ok(!spread($t, 6, '/r/')->{$member}, 'and gets no new ones');
    $t->stop;
    $t->clear_config;
    start($t, $pools->());
    $still->('they outlive a stop');
    $up[$member]->refuse;
    for (1, 2) {
        my $response = $t->get('/t/', Cookie => $cookie{t});
        isnt($response->header('X-Member'), $member, 'temporary: another member');
        is(cookie($response), '', 'the cookie stays');
    }
    is($t->get('/f/', Cookie => $cookie{f})->status, 503, 'fail') for 1, 2;
    my $moved = $t->get('/r/', Cookie => $cookie{r});
    isnt(cookie($moved), '', 'repin: another one, and a new cookie');
    $up[$member]->listen->start;
    is_deeply(spread($t, 3, '/r/', Cookie => cookie($moved)), { $moved->header('X-Member') => 3 },
        'for good');
    restarted($t, $pools->(map { $_ == $member ? 'state=down' : '' } 0 .. 2));
    is($t->get('/f/', Cookie => $cookie{f})->status, 503, 'the same when it is meant to be down');
    isnt(cookie($t->get('/r/', Cookie => $cookie{r})), '', 'repin');
};

behaviour 'a tunnel begins a session, too', @two, sub {
    my ($t) = @_;
    my @up = map { $t->upstream(sub {
        my ($conn) = @_;
        $conn->read_request or return;
        $conn->respond(101, [Upgrade => 'websocket', Connection => 'Upgrade']);
        $conn->read_eof;
    }) } 0, 1;
    start($t, pool('a', \@up, [], 'RProxySticky cookie=S'));
    my $tunnel = $t->begin('GET', '/a/', { headers => [Upgrade => 'websocket',
            Connection => 'Upgrade', 'Sec-WebSocket-Version' => 13,
            'Sec-WebSocket-Key' => 'dGhlIHNhbXBsZSBub25jZQ=='] });
    is($tunnel->head->status, 101, 'it is open');
    like($tunnel->head->header('Set-Cookie'), qr/^S=[\w-]{42}; /, 'with a cookie');
    $tunnel->close;
};

behaviour 'keys can be changed', @two, sub {
    my ($t) = @_;
    my @up = members($t, 4);
    my $file = $t->file('keys', "# ours\n\nfirst-key-0123456789\n");
    my @pool = pool('a', \@up, [], "RProxySticky cookie=S key=$file");
    start($t, @pool);
    my $response = $t->get('/a/');
    my ($member, $old) = ($response->header('X-Member'), cookie($response));
    $t->file('keys', "second-key-0123456789\nfirst-key-0123456789\n");
    restarted($t, @pool);
    $response = $t->get('/a/', Cookie => $old);
    my $new = cookie($response);
    is($response->header('X-Member'), $member, 'the old key still opens');
    isnt($new, '', 'the first one seals');
    $t->file('keys', "second-key-0123456789\n");
    restarted($t, @pool);
    is_deeply(spread($t, 4, '/a/', Cookie => $new), { $member => 4 }, 'the new value holds');
    isnt(cookie($t->get('/a/', Cookie => $old)), '', 'the old one does no more');
};

behaviour 'routes, sessions that are learnt, and hashes', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 4);
    $t->access_format('%U [%{BALANCER_NAME}e|%{BALANCER_WORKER_ROUTE}e|%{BALANCER_SESSION_STICKY}e'
        . '|%{BALANCER_SESSION_ROUTE}e|%{BALANCER_ROUTE_CHANGED}e]');
    start($t, pool('route', \@up, [map { "route=n$_" } 0 .. 3],
            'RProxySticky route=JSESSIONID|jsessionid'),
        pool('learn', \@up, [], 'RProxySticky learn=sid'),
        pool('header', \@up, [], 'RProxySticky header=X-User'),
        pool('ip', \@up, [], 'RProxySticky ip'));
    is_deeply(spread($t, 3, '/route/1', Cookie => 'JSESSIONID=ab.n2'), { 2 => 3 }, 'a cookie');
    $t->wait_access_log(qr{/route/1 \[balancer://route\|n2\|JSESSIONID\|n2\|-\]});
    is_deeply(spread($t, 3, '/route/x;jsessionid=ab.n3', Cookie => 'JSESSIONID=ab.n2'), { 3 => 3 },
        'a parameter of the path');
    is_deeply(spread($t, 2, '/route/x?jsessionid=ab.n1'), { 1 => 2 }, 'and of the query');
    my $unknown = spread($t, 4, '/route/2', Cookie => 'JSESSIONID=ab.n9');
    is(scalar keys %$unknown, 4, 'a route that nobody has');
    $t->wait_access_log(qr{/route/2 \[balancer://route\|n\d\|JSESSIONID\|n9\|1\]});
    my $login = $t->get('/learn/?Set-Cookie=sid%3Dabc');
    my @seen = $t->parallel(3, sub { return spread($t, 4, '/learn/', Cookie => 'a=b; sid=abc') });
    is_deeply(\@seen, [({ $login->header('X-Member') => 4 }) x 3],
        'all children know which member set the cookie');
    is(scalar keys %{ spread($t, 4, '/learn/', Cookie => 'sid=xyz') }, 1, 'one that nobody set');
    my %user = map { $_ => $t->get('/header/', 'X-User' => "u$_")->header('X-Member') } 1 .. 50;
    my %used = map { $_ => 1 } values %user;
    is(scalar keys %used, 4, 'headers lead to all members');
    is_deeply(spread($t, 2, '/header/', 'X-User' => "u$_"), { $user{$_} => 2 }, "always: u$_")
        for 1 .. 3;
    is(scalar keys %{ spread($t, 5, '/ip/') }, 1, 'an address to one');
};

behaviour 'what mod_proxy\'s users have written', lanes => [qw(event prefork engine)], sub {
    my ($t) = @_;
    my @up = members($t, 3);
    $t->extra_modules('headers');
    start($t, pool('app', \@up, ['route=one', 'route=two', 'route=three'],
            'RProxySticky route=ROUTEID'),
        'Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/" env=BALANCER_ROUTE_CHANGED');
    my $first = $t->get('/app/');
    my $route = (qw(one two three))[$first->header('X-Member')];
    is($first->header('Set-Cookie'), "ROUTEID=.$route; path=/", 'the cookie is made');
    my $again = $t->get('/app/', Cookie => cookie($first));
    is($again->header('X-Member'), $first->header('X-Member'), 'it leads back');
    is($again->header('Set-Cookie'), undef, 'and is not made again');
};

behaviour 'a member at its max=', @two, sub {
    my ($t) = @_;
    my $reply = sub { "HTTP/1.1 200 OK\r\nX-Member: $_[0]\r\nContent-Length: 1\r\n\r\nx" };
    my @up = map { $t->upstream(record => 0)->crowd(reply => $reply->($_), hold => 'go') } 0, 1;
    my @keys = ('route=a max=1', 'route=b');
    start($t, pool('t', \@up, \@keys, 'RProxySticky route=S'),
        pool('f', \@up, \@keys, 'RProxySticky route=S down=fail'),
        pool('q', \@up, \@keys, 'RProxySticky route=S', 'RProxyQueue max=5 timeout=60s'));
    my @asked = map { $t->begin('GET', "/$_/1", { headers => [Cookie => 'S=1.a'] }) } qw(t f q);
    wait_until('requests', undef, sub { return $up[0]->count('request') == 3 });
    push @asked, $t->begin('GET', '/t/2', { headers => [Cookie => 'S=1.a'] });
    wait_until('another member to be asked', undef, sub { return $up[1]->count('request') == 1 });
    is($t->get('/f/2', Cookie => 'S=1.a')->status, 503, 'with down=fail there is no other');
    my $waits = $t->begin('GET', '/q/2', { headers => [Cookie => 'S=1.a'] });
    push @asked, $t->begin('GET', '/q/3', { headers => [Cookie => 'S=1.b'] });
    wait_until('others not to wait', undef, sub { return $up[1]->count('request') == 2 });
    is($up[0]->count('request'), 3, 'in a queue it waits for its own');
    $_->signal('go') for @up;
    is($waits->response->header('X-Member'), 0, 'and gets there');
    is($_->response->status, 200, 'answered') for @asked;
    $_->close for @asked, $waits;
};

behaviour 'RProxySticky as it may not be written', lanes => ['event'], sub {
    my ($t) = @_;
    my @members = map { "RProxyMember http://10.0.0.$_:8080 route=r$_" } 1, 2;
    my $in = sub { return ['<RProxyBalancer app>', @members, @_, '</RProxyBalancer>'] };
    my $short = $t->file('short', "short\n");
    my $empty = $t->file('empty', "# nothing\n");
    my %messages = (
        '' => qr/write one of cookie=NAME, route=COOKIE, learn=COOKIE, header=NAME and ip/,
        'cookie=a learn=b' => qr/write one of/,
        'ip header=X' => qr/write one of/,
        'cookie=a;b' => qr/a name has letters/,
        'route=A|' => qr/behind \| stands the name of a parameter/,
        'learn=A ttl=5min' => qr/are for cookie=; remove them/,
        'header=X down=fail' => qr/down= has no use with header= and ip/,
        'cookie=A down=up' => qr/write repin, temporary or fail/,
        'cookie=A samesite=none' => qr/samesite=none with Secure only; add secure/,
        'cookie=__Host-A secure path=/x' => qr/remove domain= and path=/,
        'cookie=__Secure-A' => qr/add secure/,
        'cookie=A path=x' => qr/a path begins with/,
        'cookie=A domain=a;b' => qr/';' can't stand there/,
        'cookie=A ttl=0' => qr/write a time above 0/,
        'cookie=A key=/nowhere/key' => qr/can't be read: .*; correct the path/,
        "cookie=A key=$short" => qr/is too short, .*openssl rand/,
        "cookie=A key=$empty" => qr/has no key; make one/,
        'cookie=A name=x' => qr/unknown key/,
    );
    refused_in($t, 'server_config', $in->("RProxySticky $_"), $messages{$_},
        qr/^RProxySticky \Q$_\E$/) for sort keys %messages;
    refused_in($t, 'server_config', $in->('RProxySticky ip', 'RProxySticky cookie=A'),
        qr/stands twice in the pool/, qr/cookie=A/);
    refused_in($t, 'server_config', ['RProxySticky ip'], qr/describes a pool/, qr/RProxySticky/);
    refused_in($t, 'server_config', $in->('RProxyMember http://10.0.0.3:8080 route=r1'),
        qr/have the same route=r1; give each its own/, qr/<RProxyBalancer/);
    @members = 'RProxyMember http://10.0.0.1:8080';
    refused_in($t, 'server_config', $in->('RProxySticky route=A'),
        qr/no member has route=; add it to the members/, qr/<RProxyBalancer/);
    accepted_in($t, 'server_config', @{ $in->("RProxySticky $_") })
        for 'cookie=__Host-A secure', 'cookie=A samesite=None secure=on ttl=1d down=Temporary',
        'cookie=A secure=off httponly=on samesite=off', 'header=X-User', 'ip', 'learn=PHPSESSID';
};

done_testing;
