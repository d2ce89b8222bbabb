#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Names of upstreams: looked up away from requests, for as long as their TTL says, with all their
# addresses, and whatever the name server does, the server starts and goes on.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use IO::Socket::IP;
use RProxy::DNS;
use RProxy::Wait qw(now seconds);

# One child, where questions to the name server are counted.
sub one_child {
    my ($t) = @_;
    $t->mpm_config(StartServers => 1, ServerLimit => 1, MaxRequestWorkers => 1,
        MinSpareServers => 1, MaxSpareServers => 2) if $t->mpm eq 'prefork';
    return;
}

sub name_server {
    my ($t, @settings) = @_;
    my $dns = RProxy::DNS->start($t);
    $t->server_config("RProxyResolver @{[ $dns->address ]} @settings");
    return $dns;
}

# Upstreams on one port of these addresses; each answers with its address. Returns the port, too.
sub upstreams {
    my ($t, @addresses) = @_;
    my ($port, @up);
    for my $address (@addresses) {
        my $up = $t->upstream(host => $address, ipv6 => $address =~ /:/ ? 1 : 0,
            $port ? (port => $port) : ());
        $port //= $up->port;
        $up->on_connection(sub {
            my ($conn) = @_;
            while (my $request = $conn->read_request) {
                $conn->respond(200, ['X-Host' => $request->header('Host')], $address);
            }
            $conn->notify('closed');
        });
        push @up, $up;
    }
    return ($port, @up);
}

# Who answers, or why nobody does.
sub who {
    my ($t, $target) = @_;
    my $response = $t->get($target // '/');
    return $response->status == 200 ? $response->body
        : $response->status . ' ' . ($response->header('Proxy-Status') =~ s/.*error=//r);
}

sub is_from_soon {
    my ($t, $target, $address, $name) = @_;
    my $last;
    eval { wait_until($address, undef, sub { ($last = who($t, $target)) eq $address }) };
    return is($last, $address, $name);
}

behaviour 'a name is looked up once for its TTL, and not for each request', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t);
    my ($port, @up) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('app.test', ttl => 60, A => ['127.0.0.1']);
    $t->config("RProxyPass / http://app.test:$port/", 'RProxyPreserveHost off');
    $t->start;
    is(who($t), '127.0.0.1', 'the first request');
    $dns->set('app.test', ttl => 60, A => ['127.0.0.2']);
    is(who($t), '127.0.0.1', 'another one') for 1 .. 5;
    is($dns->queries('app.test'), 1, 'one question for all');
    is($t->get('/')->header('X-Host'), "app.test:$port", 'Host is the name');
};

behaviour 'a changed address is followed when the TTL is over', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t, 'max-ttl=2s');
    my ($port, $one, $two) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('short.test', ttl => 1, A => ['127.0.0.1']);
    $dns->set('long.test', ttl => 86_400, A => ['127.0.0.1']);
    $t->config("RProxyPass /short/ http://short.test:$port/",
        "RProxyPass /long/ http://long.test:$port/", $t->rule_for_the_rest);
    $t->start;
    for my $path ('/short/', '/long/') {
        is(who($t, $path), '127.0.0.1', "$path: at first");
    }
    $dns->set("$_.test", ttl => 1, A => ['127.0.0.2']) for qw(short long);
    is_from_soon($t, '/short/', '127.0.0.2', 'TTL of the name');
    is_from_soon($t, '/long/', '127.0.0.2', 'max-ttl=');
    for my $path (('/short/', '/long/') x 3) {
        is(who($t, $path), '127.0.0.2', "$path: from then on");
    }
    $one->wait_event('closed') for 1 .. 2;
    is(scalar $one->connections, 2, 'idle connections to the old address are closed');
};

behaviour 'min-ttl= bounds the TTL from below', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t, 'min-ttl=1min');
    my ($port) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('app.test', ttl => 0, A => ['127.0.0.1']);
    $t->config("RProxyPass /app/ http://app.test:$port/",
        "RProxyPass /absent/ http://absent.test:$port/", $t->rule_for_the_rest);
    $t->start;
    is(who($t, '/app/'), '127.0.0.1', 'at first');
    $dns->set('app.test', ttl => 0, A => ['127.0.0.2']);
    # A name that does not exist is asked for again and again: the time of several TTLs.
    my $absences = $dns->queries('absent.test');
    my %seen;
    wait_until('more questions', undef, sub {
        $seen{ who($t, $_) }++ for '/app/', '/absent/';
        return $dns->queries('absent.test') >= $absences + 2;
    });
    is_deeply([sort keys %seen], ['127.0.0.1', '502 dns_error'], 'still that address');
    is($dns->queries('app.test'), 1, 'no second question');
};

behaviour 'all addresses are used, and those that refuse cost nothing', sub {
    my ($t) = @_;
    my $dns = name_server($t);
    my @addresses = ('127.0.0.1', '127.0.0.2', '127.0.0.3');
    my ($port, @up) = upstreams($t, @addresses);
    $dns->set('app.test', A => [@addresses]);
    $t->access_format('%>s %{rproxy-attempts}e %{rproxy-upstream}e');
    $t->config("RProxyPass / http://app.test:$port/", 'RProxyKeepAlive max=0',
        'RProxyRetry tries=1');
    $t->start;
    # Every child begins where it likes: a client stays with one.
    my $client = $t->client;
    my $answers = sub {
        my %count;
        $count{ $client->get('/')->body }++ for 1 .. $_[0];
        return \%count;
    };
    is_deeply($answers->(9), { map { $_ => 3 } @addresses }, 'in turn');
    $up[0]->refuse;
    my $seen = $answers->(12);
    is_deeply([sort keys %$seen], ['127.0.0.2', '127.0.0.3'], 'one refuses: the others answer');
    $up[1]->refuse;
    is_deeply($answers->(5), { '127.0.0.3' => 5 }, 'two refuse: the last one answers');
    $up[2]->refuse;
    my $response = $client->get('/');
    is($response->status, 502, 'all refuse: 502');
    like($response->header('Proxy-Status'), qr/error=connection_refused$/, 'says why');
    $up[0]->start;
    is_deeply($answers->(3), { '127.0.0.1' => 3 }, 'one that failed lately is tried all the same');
    $client->close;
    ok($t->wait_access_log(qr{^200 1 127\.0\.0\.3:$port$}), 'the log has the address');
    is(scalar(grep { !/^\d+ 1 / } $t->access_log), 0, 'each in one attempt');
};

behaviour 'old addresses are kept while the name server fails', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t, 'timeout=1s');
    my ($port) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('app.test', ttl => 1, A => ['127.0.0.1']);
    $t->config("RProxyPass / http://app.test:$port/");
    $t->start;
    is(who($t), '127.0.0.1', 'at first');
    for my $code ('SERVFAIL', 'silent') {
        $dns->set('app.test', code => $code);
        my $before = $dns->queries('app.test');
        my %seen;
        my $slowest = 0;
        wait_until('questions', undef, sub {
            my $began = now();
            $seen{ who($t) }++;
            my $took = now() - $began;
            $slowest = $took if $took > $slowest;
            return $dns->queries('app.test') >= $before + 2;
        });
        is_deeply([keys %seen], ['127.0.0.1'], "$code: the old address serves");
        cmp_ok($slowest, '<', seconds(3), 'nobody waits for the name server');
        $dns->set('app.test', ttl => 1, A => ['127.0.0.1']);
        my $answered = $dns->queries('app.test');
        wait_until('a good answer', 40,
            sub { who($t); return $dns->queries('app.test') > $answered });
    }
    ok($t->wait_log(qr/RP0201: the name app\.test .*old addresses stay in use/), 'the log says so');
    $dns->set('app.test', ttl => 1, A => ['127.0.0.2']);
    is_from_soon($t, '/', '127.0.0.2', 'and is followed again afterwards');
    ok($t->wait_log(qr/RP0203: the name app\.test resolves again/), 'the log says so');
};

behaviour 'a name that cannot be resolved at startup is an error until it can', sub {
    my ($t) = @_;
    my $dns = name_server($t, 'timeout=1s');
    my ($port) = upstreams($t, '127.0.0.1');
    my %error = (servfail => '502 dns_error', nxdomain => '502 dns_error',
        refused => '502 dns_error', empty => '502 dns_error', silent => '504 dns_timeout',
        absent => '502 dns_error', dangling => '502 dns_error', loop => '502 dns_error');
    $dns->set('servfail.test', code => 'SERVFAIL');
    $dns->set('nxdomain.test', code => 'NXDOMAIN');
    $dns->set('refused.test', code => 'REFUSED');
    $dns->set('empty.test', ttl => 1);
    $dns->set('silent.test', code => 'silent');
    $dns->set('dangling.test', ttl => 1, CNAME => 'nowhere.test');
    $dns->set('loop.test', ttl => 1, CNAME => 'loop.test');
    $dns->set('good.test', A => ['127.0.0.1']);
    $t->config(map({ "RProxyPass /$_/ http://$_.test:$port/" } 'good', keys %error),
        'RProxyRetry on=off', $t->rule_for_the_rest);
    $t->start;
    my $slow = $t->mpm eq 'prefork' ? undef : $t->begin('GET', '/silent/');
    is(who($t, '/good/'), '127.0.0.1', 'a name that has an address does not wait for the others');
    for my $name (sort keys %error) {
        is(who($t, "/$name/"), $error{$name}, "$name: $error{$name}");
    }
    is($slow->response->status, 504, 'and for who came first') if $slow;
    is($t->request('POST', '/absent/', { body => 'x' })->status, 502, 'POST');
    $dns->set("$_.test", A => ['127.0.0.1']) for keys %error;
    for my $name (sort keys %error) {
        is_from_soon($t, "/$name/", '127.0.0.1', "$name: resolved without a restart");
    }
    ok($t->wait_log(qr/RP0101: .*absent\.test/), 'the log names the target');
    ok($t->wait_log(qr/RP0201: the name absent\.test .*no address yet/), 'and the name');
    my $started = () = $t->error_log =~ /resuming normal operations/g;
    is($started, 1, 'one start');
};

behaviour 'a name server that is not there is no reason not to start', sub {
    my ($t) = @_;
    my $nobody = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1') or die "$@\n";
    my $address = '127.0.0.1:' . $nobody->sockport;
    close $nobody;
    my ($port) = upstreams($t, '127.0.0.1');
    $t->server_config("RProxyResolver $address timeout=1s");
    $t->config("RProxyPass /name/ http://app.test:$port/",
        "RProxyPass /hosts/ http://localhost:$port/",
        "RProxyPass /address/ http://127.0.0.1:$port/", $t->rule_for_the_rest);
    $t->start;
    like(who($t, '/name/'), qr/^50[24] dns_(?:error|timeout)$/, 'a name: an error of DNS');
    is(who($t, '/address/'), '127.0.0.1', 'an address needs no name server');
    is(who($t, '/hosts/'), '127.0.0.1', 'nor does a name of the hosts file');
};

behaviour 'the hosts file comes first', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t);
    my ($port) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('localhost', A => ['127.0.0.2']);
    $t->config("RProxyPass / http://localhost:$port/");
    $t->start;
    is(who($t), '127.0.0.1', 'localhost is what it says');
    is($dns->queries('localhost'), 0, 'the name server is not asked');
};

behaviour 'aliases are followed, with the least TTL on the way', sub {
    my ($t) = @_;
    one_child($t);
    my $dns = name_server($t);
    my ($port) = upstreams($t, '127.0.0.1', '127.0.0.2');
    $dns->set('www.test', ttl => 86_400, CNAME => 'middle.test');
    $dns->set('middle.test', ttl => 1, CNAME => 'one.test');
    $dns->set('one.test', ttl => 86_400, A => ['127.0.0.1']);
    $dns->set('two.test', ttl => 86_400, A => ['127.0.0.2']);
    $t->config("RProxyPass / http://www.test:$port/");
    $t->start;
    is(who($t), '127.0.0.1', 'through two aliases');
    $dns->set('middle.test', ttl => 1, CNAME => 'two.test');
    is_from_soon($t, '/', '127.0.0.2', 'a changed alias is followed');
};

# True where the machine has ::1.
sub has_ipv6 {
    return IO::Socket::IP->new(LocalHost => '::1', Proto => 'udp') ? 1 : 0;
}

behaviour 'AAAA and A together, alone, and one of them failing', sub {
    my ($t) = @_;
    my $dns = name_server($t);
    my @addresses = ('127.0.0.1', has_ipv6() ? '::1' : ());
    my ($port, @up) = upstreams($t, @addresses);
    $dns->set('both.test', A => ['127.0.0.1'], AAAA => ['::1']);
    $dns->set('four.test', A => ['127.0.0.1']);
    $dns->set('six.test', AAAA => ['::1']);
    # Nobody has this one: the documentation's prefix (RFC 3849).
    $dns->set('far.test', A => ['127.0.0.1'], AAAA => ['2001:db8::1']);
    $t->access_format('%U %>s %{rproxy-upstream}e');
    $t->config(map({ "RProxyPass /$_/ http://$_.test:$port/" } qw(both four six far)),
        'RProxyKeepAlive max=0', 'RProxyTimeout connect=9s', $t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    my %seen;
    $seen{ $client->get('/both/')->body }++ for 1 .. 6;
    ok($seen{ $addresses[-1] }, 'both: the first of RFC 6724 is used') or diag(explain(\%seen));
    is(who($t, '/four/'), '127.0.0.1', 'A alone');
    if (@addresses > 1) {
        is(who($t, '/six/'), '::1', 'AAAA alone');
        ok($t->wait_access_log(qr{^/six/ 200 \[::1\]:$port$}), 'the log writes it in brackets');
        $up[1]->refuse;
        is($client->get('/both/')->body, '127.0.0.1', '::1 refuses: 127.0.0.1 at once') for 1 .. 3;
    }
    is(who($t, '/far/'), '127.0.0.1', 'an address that nobody can reach is passed over');
};

done_testing;
