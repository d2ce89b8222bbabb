#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# RProxyQueue: requests that wait for a member, in order over all children; and RProxyRetryBudget.
# Upstreams hold requests until they are told; mod_status on a port of its own says who waits.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Pools;
use RProxy::Test;

my @lanes = (lanes => [qw(event prefork engine engine-h2)]);
my $REPLY = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";

# Answers a request when it is told "go TARGET".
sub one_by_one {
    my ($t) = @_;
    return $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->notify('at ' . $request->target);
            $conn->wait_for('go ' . $request->target);
            $conn->respond(200, [], 'x');
        }
    });
}

sub pool {
    my ($members, @lines) = @_;
    return ('<RProxyBalancer app>', (map { "RProxyMember $_" } @$members), @lines,
        '</RProxyBalancer>', 'RProxyPass / balancer://app/');
}

sub start {
    my ($t, @lines) = @_;
    $t->mpm_config(StartServers => 3, ServerLimit => 6, ThreadsPerChild => 8,
        MaxRequestWorkers => 48) if $t->mpm eq 'event';
    $t->mpm_config(StartServers => 16, MaxSpareServers => 20) if $t->mpm eq 'prefork';
    $t->access_format('%U queue=%{rproxy-queue}e attempts=%{rproxy-attempts}e '
            . 'error=%{rproxy-error}e');
    return write_config($t, @lines)->start;
}

sub write_config {
    my ($t, @lines) = @_;
    $t->server_config(@lines);
    return status_vhost($t);
}

# What is counted of the pool.
sub counted { my ($t) = @_; return pool_status($t)->{app} // {} }

sub wait_counted {
    my ($t, $key, $value, $seconds) = @_;
    my $found = -1;
    return wait_until("$key to be $value", $seconds // 30,
        sub { return ($found = counted($t)->{$key}) == $value });
}

# Begins a request, which is the last one in line then.
sub begin_waiting {
    my ($t, $target, $waiting) = @_;
    my $exchange = $t->begin('GET', $target);
    wait_counted($t, 'waiting', $waiting);
    return $exchange;
}

sub is_refused {
    my ($response, $name) = @_;
    is($response->status, 503, "$name: 503");
    return is($response->header('Retry-After'), 5, "$name: it says when to come again");
}

behaviour 'requests wait in order over all children', @lanes, sub {
    my ($t) = @_;
    my $up = one_by_one($t);
    start($t, pool([$up->url . ' max=1'], 'RProxyQueue max=4 timeout=2min'));
    my @exchanges = $t->begin('GET', '/0');
    $up->wait_event('at /0');
    push @exchanges, begin_waiting($t, "/$_", $_) for 1 .. 4;
    is_refused($t->get('/full'), 'as many wait as may');
    for my $i (0 .. 4) {
        $up->signal("go /$i");
        $up->wait_event('at /' . ($i + 1)) if $i < 4;
        is($up->count("at /$_"), 0, "not yet /$_") for $i + 2 .. 4;
    }
    is($_->response->status, 200, 'answered') for @exchanges;
    $_->close for @exchanges;
    my $counted = counted($t);
    is($counted->{$_}, { queued => 4, 'queue-full' => 1, 'queue-timeouts' => 0, waiting => 0,
            'in-flight' => 0, retries => 0 }->{$_}, $_)
        for qw(queued queue-full queue-timeouts waiting in-flight retries);
    $t->wait_access_log(qr{^/0 queue=- attempts=1 error=-$}m);
    $t->wait_access_log(qr{^/4 queue=\d+ attempts=1 error=-$}m);
    $t->wait_access_log(qr{^/full queue=- attempts=0 error=queue-full$}m);
};

behaviour 'a client that leaves gives its place to another', @lanes, sub {
    my ($t) = @_;
    my $up = one_by_one($t);
    start($t, pool([$up->url . ' max=1'], 'RProxyQueue max=1 timeout=2min'));
    my $first = $t->begin('GET', '/0');
    $up->wait_event('at /0');
    begin_waiting($t, '/left', 1)->abort;
    wait_counted($t, 'waiting', 0);
    my $last = begin_waiting($t, '/1', 1);
    $up->signal("go /$_") for 0, 1;
    is($_->response->status, 200, 'answered') for $first, $last;
    is($up->count('at /left'), 0, 'nobody asks for who has left');
    wait_counted($t, 'in-flight', 0);
    $_->close for $first, $last;
};

behaviour 'nobody waits for ever', lanes => ['event', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = one_by_one($t);
    start($t, pool([$up->url . ' max=1'], 'RProxyQueue timeout=300ms'));
    my $first = $t->begin('GET', '/0');
    $up->wait_event('at /0');
    is_refused($t->get('/late'), 'too late');
    $t->wait_access_log(qr{^/late queue=\d{6,} attempts=0 error=queue-timeout$}m);
    is(counted($t)->{'queue-timeouts'}, 1, 'it is counted');
    is(counted($t)->{waiting}, 0, 'and waits no more');
    $up->signal('go /0');
    is($first->response->status, 200, 'the first is answered');
    $first->close;
};

behaviour 'waiting counts for total=, not for connect=', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = one_by_one($t);
    start($t, pool([$up->url . ' max=1'], 'RProxyQueue timeout=2min'),
        'RProxyTimeout connect=300ms', '<Location /short>', 'RProxyTimeout total=1s',
        '</Location>');
    my $first = $t->begin('GET', '/0');
    $up->wait_event('at /0');
    is($t->get('/short')->status, 504, 'the total time is over');
    $t->wait_access_log(qr{^/short queue=\d{6,} attempts=0 error=total-timeout$}m);
    is(counted($t)->{waiting}, 0, 'and it waits no more');
    $up->signal('go /0');
    is($first->response->status, 200, 'the other one is answered');
    $first->close;
};

behaviour 'places of a killed child go to those who wait', lanes => ['event', 'engine-h2'], sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    my @up = map { $t->upstream(record => 0)->crowd(reply => $REPLY, hold => 'go') } 0, 1;
    start($t, pool([map { $_->url . ' max=2' } @up], 'RProxyQueue timeout=2min'));
    my @exchanges = map { $t->begin('GET', "/$_") } 1 .. 12;
    wait_counted($t, 'waiting', 8);
    my @children = $t->children;
    shift @children;
    kill 'KILL', @children;
    $_->signal('go') for @up;
    # Either their child was killed, or they are answered.
    my %got;
    $got{ $_->response->status // 'gone' }++ for @exchanges;
    is(($got{200} // 0) + ($got{gone} // 0), 12, 'all that can be answered are');
    $_->close for @exchanges;
    wait_counted($t, $_, 0) for 'in-flight', 'waiting';
    is($t->get('/')->status, 200, 'and others, too');
};

behaviour 'children are killed under load', lanes => ['prefork', 'engine'], sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    my @up = map { $t->upstream(record => 0)->crowd(reply => $REPLY, delay => 0.002) } 0, 1;
    start($t, pool([map { $_->url . ' max=1' } @up], 'RProxyQueue timeout=2min'));
    my @load = map { $t->background(sub {
        my %got;
        $got{ $t->get('/')->status // 'gone' }++ for 1 .. 100;
        return \%got;
    }) } 1 .. 6;
    for my $already (100, 250, 400) {
        wait_until('requests', undef, sub { return $up[0]->count('request')
                    + $up[1]->count('request') >= $already });
        kill 'KILL', grep { defined } ($t->children)[0, 1];
    }
    my %got;
    for my $some (map { scalar $_->result(120) } @load) { $got{$_} += $some->{$_} for keys %$some }
    is(($got{200} // 0) + ($got{gone} // 0), 600, 'nobody waits in vain');
    wait_counted($t, $_, 0) for 'in-flight', 'waiting';
};

behaviour 'who waits goes on waiting over a graceful restart', lanes => ['prefork', 'engine'], sub {
    my ($t) = @_;
    my $up = one_by_one($t);
    my @pool = pool([$up->url . ' max=1'], 'RProxyQueue timeout=2min');
    start($t, @pool);
    my @exchanges = $t->begin('GET', '/0');
    $up->wait_event('at /0');
    push @exchanges, begin_waiting($t, '/1', 1);
    $t->graceful;
    push @exchanges, begin_waiting($t, '/2', 2);
    $up->signal('go /0');
    $up->wait_event('at /1');
    is($up->count('at /2'), 0, 'one of before comes first');
    $up->signal('go /1');
    $up->wait_event('at /2');
    $up->signal('go /2');
    is($_->response->status, 200, 'answered') for @exchanges;
    $_->close for @exchanges;
    wait_counted($t, 'in-flight', 0);
};

behaviour 'the budget of retries', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my @up = map { $t->upstream->reply_with(200, [], 'x') } 0, 1;
    my @pool = pool([map { $_->url } @up], 'RProxyOutlier off');
    start($t, @pool[0 .. 3], 'RProxyRetryBudget percent=1 min=0', @pool[4 .. $#pool]);
    $up[1]->refuse;
    my %got;
    $got{ $t->get('/')->status }++ for 1 .. 6;
    is_deeply(\%got, { 200 => 3, 502 => 3 }, 'nothing is tried again without one');
    $t->wait_access_log(qr{attempts=1 error=connection-refused$}m);
    is(counted($t)->{'retries-refused'}, 3, 'which is counted');
    $t->clear_config;
    write_config($t, @pool);
    $t->graceful;
    %got = ();
    $got{ $t->get('/')->status }++ for 1 .. 6;
    is_deeply(\%got, { 200 => 6 }, 'by default there is one');
    is(counted($t)->{$_}, { retries => 3, retrying => 0, 'in-flight' => 0 }->{$_}, $_)
        for qw(retries retrying in-flight);
};

done_testing;
