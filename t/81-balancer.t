#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Pools: who gets how much, who gets nothing, and what stays over restarts and crashes of children.
# Upstreams say in X-Member who they are; mod_status on a port of its own says what is counted.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Pools;
use RProxy::Test;
use RProxy::Wait qw(now seconds);

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);

# A server with the pool "app": lines for each member behind its URL, then further lines.
sub pool {
    my ($t, $up, $members, @lines) = @_;
    my $i = 0;
    return ('<RProxyBalancer app>', (map { 'RProxyMember ' . $_->url . ' ' . ($members->[$i++] // '') } @$up),
        @lines, '</RProxyBalancer>', 'RProxyPass / balancer://app/');
}

sub start {
    my ($t, @lines) = @_;
    $t->server_config(@lines);
    return status_vhost($t)->start;
}

# What is counted of the member in the pool "app".
sub value {
    my ($t, $up, $key) = @_;
    my ($member) = grep { $_->{url} eq $up->url } @{ pool_status($t)->{app}{members} };
    return $member->{$key};
}

sub in_flight { my ($t) = @_; return pool_status($t)->{app}{'in-flight'} }

# As spread(), by so many clients at once.
sub spread_of {
    my ($t, $requests, $clients) = @_;
    my %all;
    for my $got ($t->parallel($clients, sub { spread($t, $requests / $clients) }, 120)) {
        $all{$_} += $got->{$_} for keys %$got;
    }
    return \%all;
}

my %METHODS = (
    roundrobin => 1, leastconn => 3, random2 => 5, bytraffic => 3,
);

for my $method (sort keys %METHODS) {
    behaviour "$method goes by weights over all children", @lanes, sub {
        my ($t) = @_;
        $t->mpm_config(StartServers => 3, MinSpareServers => 3) if $t->mpm eq 'prefork';
        my @up = members($t, 3);
        start($t, pool($t, \@up, ['weight=5', 'weight=3', 'weight=1'], "RProxyMethod $method"));
        my $got = spread_of($t, 180, 3);
        is($got->{0} + $got->{1} + $got->{2}, 180, 'all are answered');
        my $off = $METHODS{$method};
        for (0 .. 2) {
            my $ideal = (100, 60, 20)[$_];
            cmp_ok(abs($got->{$_} - $ideal), '<=', $off, "member $_: $got->{$_} of $ideal");
        }
        is(in_flight($t), 0, 'none is left in flight');
    };
}

behaviour 'leasttime leaves a slow member alone', @lanes, sub {
    my ($t) = @_;
    my @up = (members($t, 2), $t->upstream(record => 0)->crowd(delay => 0.3,
            reply => "HTTP/1.1 200 OK\r\nX-Member: 2\r\nContent-Length: 1\r\n\r\nx"));
    start($t, pool($t, \@up, [], 'RProxyMethod leasttime'));
    my $got = spread_of($t, 150, 3);
    is($got->{0} + $got->{1} + $got->{2}, 150, 'all are answered');
    cmp_ok($got->{2}, '<=', 10, "few by the slow one: $got->{2}");
    cmp_ok($got->{2}, '>=', 1, 'but it was asked');
};

behaviour 'hash keeps to a member, first to the first', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, pool($t, \@up, [], 'RProxyMethod hash arg:id'), '<RProxyBalancer two>',
        (map { 'RProxyMember ' . $_->url } @up), 'RProxyMethod first', '</RProxyBalancer>',
        'RProxyPass /first balancer://two/');
    my %members;
    for my $id (1 .. 30) {
        $members{$id}{ $t->get("/$_?x=$_&id=$id")->header('X-Member') }++ for 1, 2;
    }
    is(scalar grep({ keys %$_ != 1 } values %members), 0, 'the same key, the same member');
    my %used = map { $_ => 1 } map { keys %$_ } values %members;
    is(scalar keys %used, 3, 'all members have keys');
    is($t->get('/first/')->header('X-Member'), 0, 'first') for 1 .. 4;
};

behaviour 'down, drained and backup members', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 4);
    start($t, pool($t, \@up, ['state=down', 'state=drain', '', 'backup']));
    is_deeply(spread($t, 10), { 2 => 10 }, 'only the one that is up');
    is(value($t, $up[$_], 'state'), (qw(down drain up up))[$_], 'its state') for 0 .. 3;
    $up[2]->refuse;
    is_deeply(spread($t, 10), { 3 => 10 }, 'the backup while it is gone');
};

behaviour 'members of the own zone come first', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, 'RProxyZone here', pool($t, \@up, ['zone=there', 'zone=here', '']));
    is_deeply(spread($t, 6), { 1 => 6 }, 'only the one of the zone');
    $up[1]->refuse;
    my $got = spread($t, 20);
    is($got->{0} + $got->{2}, 20, 'the others when it is gone');
    cmp_ok(abs($got->{0} - $got->{2}), '<=', 2, "alike: $got->{0}, $got->{2}");
};

behaviour 'a member that is gone costs no request, and is ejected', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, pool($t, \@up, [], 'RProxyOutlier errors=3 eject=1s'));
    $up[1]->refuse;
    my $got = spread($t, 60);
    is_deeply([sort keys %$got], [0, 2], 'all others answer');
    is(value($t, $up[1], 'failures') - value($t, $up[1], 'ejections'), 2,
        'it was asked three times, and once when each ejection was over');
    # Where the last one is over meanwhile, the next request that goes there begins another.
    wait_until('it to be ejected', undef,
        sub { return value($t, $up[1], 'state') eq 'ejected' || !$t->get('/') });
    $t->wait_log(qr/RP0402: pool app: member \S+ is ejected for 1000 ms/);
    $up[1]->listen->start;
    wait_until('it to be back', undef, sub { return $t->get('/')->header('X-Member') == 1 });
    $t->wait_log(qr/RP0403: pool app: member \S+ is back/);
    is_deeply(spread($t, 30), { 0 => 10, 1 => 10, 2 => 10 }, 'it has its share again');
    is(in_flight($t), 0, 'none is left in flight');
};

behaviour 'all members are gone and come back', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, pool($t, \@up, []));
    $_->refuse for @up;
    is_deeply([keys %{ spread($t, 20) }], [502], 'nobody answers');
    $_->listen->start for @up;
    my $start = now();
    ok(!exists spread($t, 20)->{502}, 'at once all requests are answered');
    cmp_ok(now() - $start, '<', seconds(10), 'and none waits');
    my %seen;
    wait_until('all members to be back', undef,
        sub { $seen{ $t->get('/')->header('X-Member') } = 1; return keys %seen == 3 });
};

behaviour 'max= holds over all children', @lanes, sub {
    my ($t) = @_;
    $t->mpm_config(StartServers => 2, ServerLimit => 2, ThreadsPerChild => 8,
        MaxRequestWorkers => 16) if $t->mpm eq 'event';
    my $reply = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    my @up = map { $t->upstream(record => 0)->crowd(reply => $reply, hold => 'go') } 0, 1;
    start($t, pool($t, \@up, ['max=3', 'max=2']));
    my @waiting = map { $t->begin('GET', "/$_") } 1 .. 5;
    wait_until('requests at the upstreams', undef,
        sub { return $up[0]->count('request') + $up[1]->count('request') == 5 });
    is($up[0]->count('request'), 3, 'three at the first');
    is(value($t, $up[1], 'in-flight'), 2, 'two at the second');
    is($t->get('/')->status, 503, 'no more') for 1 .. 3;
    $_->signal('go') for @up;
    is($_->response->status, 200, 'answered') for @waiting;
    $_->close for @waiting;
    wait_until('places to be free', undef, sub { return in_flight($t) == 0 });
    is($t->get('/')->status, 200, 'now there is room');
};

behaviour 'a child that is killed leaves nothing in flight', @lanes, sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    my $reply = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    my @up = map { $t->upstream(record => 0)->crowd(reply => $reply, hold => 'go') } 0, 1;
    start($t, pool($t, \@up, ['max=4', 'max=4']));
    my @waiting = map { $t->begin('GET', "/$_") } 1 .. 6;
    wait_until('requests in flight', undef, sub { return in_flight($t) == 6 });
    kill 'KILL', $t->children;
    wait_until('their places to be free', undef, sub { return in_flight($t) == 0 });
    $_->signal('go') for @up;
    is($t->get('/')->status, 200, 'requests are answered');
    is(in_flight($t), 0, 'and leave nothing');
};

behaviour 'a graceful restart keeps counters, health and requests', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    my $slow = $t->upstream(record => 0)->crowd(
        reply => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", hold => 'go');
    my @pool = ('RProxyOutlier errors=1 eject=1min');
    start($t, pool($t, [@up, $slow], [('') x 3, 'max=1 backup'], @pool),
        '<RProxyBalancer slow>', 'RProxyMember ' . $slow->url, '</RProxyBalancer>',
        'RProxyPass /slow balancer://slow/');
    $up[2]->refuse;
    spread($t, 20);
    my $requests = value($t, $up[0], 'requests');
    is(value($t, $up[2], 'state'), 'ejected', 'one is ejected');
    my $waiting = $t->begin('GET', '/slow');
    wait_until('a request', undef, sub { return $slow->count('request') == 1 });
    $t->clear_config;
    $t->server_config('<RProxyBalancer slow>', 'RProxyMember ' . $slow->url, '</RProxyBalancer>',
        'RProxyPass /slow balancer://slow/',
        pool($t, \@up, ['weight=3'], @pool));
    status_vhost($t)->graceful;
    is(value($t, $up[0], 'requests'), $requests, 'requests are still counted');
    is(value($t, $up[2], 'state'), 'ejected', 'the ejected one is still ejected');
    is_deeply(spread($t, 20), { 0 => 15, 1 => 5 }, 'weights are the new ones');
    $slow->signal('go');
    is($waiting->response->status, 200, 'a request of before is answered');
    is(in_flight($t), 0, 'none is left in flight');
};

behaviour 'members of all kinds', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my @up = ($t->upstream(unix => 1), $t->upstream(tls => 1), $t->upstream);
    $up[$_]->reply_with(200, ['X-Member' => $_], 'x') for 0 .. 2;
    start($t, pool($t, \@up, []), 'RProxyTLS ca=' . $t->certs->ca_file . ' name=localhost');
    is_deeply(spread($t, 9), { 0 => 3, 1 => 3, 2 => 3 }, 'a socket, TLS, TCP');
};

done_testing;
