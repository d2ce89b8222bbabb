#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Health checks: who is down, who decides it, and what members may answer. mod_status on a port of
# its own says what the balancer thinks of members.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::DNS;
use RProxy::Directives;
use RProxy::HPACK;
use RProxy::Pools;
use RProxy::Test;

my @both = (lanes => [qw(event engine)]);
my @event = (lanes => ['event']);
my $OFTEN = 'interval=200ms fast=100ms down-interval=100ms timeout=5s';

# A member that says its number, and whose /health is 200 unless the last signal was 'sick'.
sub member {
    my ($t, $number, %options) = @_;
    my $up = $t->upstream(%options);
    return $up->on_request(sub {
        my ($request) = @_;
        return [200, ['X-Member' => $number], 'x'] if $request->target ne '/health';
        my $is_sick = $up->count('sick', 'signals') > $up->count('well', 'signals');
        return [$is_sick ? 503 : 200, ['X-Member' => $number], 'all is fine'];
    });
}

sub pool {
    my ($name, $members, @lines) = @_;
    return ("<RProxyBalancer $name>", (map { "RProxyMember $_" } @$members), @lines,
        '</RProxyBalancer>');
}

sub prepare {
    my ($t, @lines) = @_;
    $t->server_config(@lines);
    return status_vhost($t);
}

sub start { my ($t, @lines) = @_; return prepare($t, @lines)->start }

# The state of each pool's member, or members.
sub states {
    my ($t) = @_;
    my $pools = pool_status($t);
    return { map { $_ => join ' ', map { $_->{state} } @{ $pools->{$_}{members} } } keys %$pools };
}

sub wait_states {
    my ($t, %expected) = @_;
    my $states;
    my $ok = eval {
        wait_until('members to be judged', undef, sub {
            $states = states($t);
            return !grep { ($states->{$_} // '') ne $expected{$_} } keys %expected;
        });
    };
    is_deeply($states, \%expected, 'members are what they should be');
    return $ok;
}

# Who answers so many requests.
sub answering { my ($t, $requests) = @_; return join ' ', sort keys %{ spread($t, $requests) } }

sub cause {
    my ($t, $pool, $cause) = @_;
    like($t->wait_log(qr/RP0420: pool $pool: /), $cause, "why the member of $pool is down");
    return;
}

behaviour 'a member that fails its checks gets nothing until it passes them',
    lanes => [qw(event engine prefork)], sub {
    my ($t) = @_;
    my @up = map { member($t, $_) } 0, 1;
    start($t, pool('app', [map { $_->url } @up],
            "RProxyHealthCheck http uri=/health rise=2 fall=2 first=wait $OFTEN"),
        'RProxyPass / balancer://app/');
    wait_states($t, app => 'up up');
    is(answering($t, 6), '0 1', 'both are used');
    $up[1]->signal('sick');
    my $line = $t->wait_log(qr/RP0420: pool app: member \S+ is down/);
    like($line, qr/2 of its checks failed in a row, the last one: status 503 instead of 200-399/,
        'it is down');
    wait_states($t, app => 'up unhealthy');
    is(answering($t, 6), '0', 'only the other one is used');
    $up[1]->signal('well');
    $t->wait_log(qr/RP0421: pool app: member \S+ is up, 2 of its checks passed/);
    is(answering($t, 6), '0 1', 'both are used again');
    my $probe = (grep { $_->target eq '/health' } $up[0]->requests)[0];
    is($probe->method, 'GET', 'a check is a GET');
    is($probe->header('Host'), '127.0.0.1:' . $up[0]->port, 'for the member');
    is($probe->header('Connection'), 'close', 'on a connection of its own');
};

behaviour 'what a check asks and expects', @event, sub {
    my ($t) = @_;
    my $up = $t->upstream->on_request(sub {
        my ($request) = @_;
        return [200, [], 'all is fine'] if $request->target eq '/base/health?x=1';
        return [418, [], 'tea'] if $request->target eq '/base/tea';
        return [($request->header('X-Key') // '') eq 'a b' ? 204 : 403, [], '']
            if $request->target eq '/base/key';
        return [($request->header('Host') // '') eq 'app.test' ? 200 : 404, [], '']
            if $request->target eq '/base/host';
        return [$request->method eq 'HEAD' ? 200 : 405, [], 'x'];
    });
    my %checks = (
        bodyok => 'uri=/health?x=1 body="is\s+(fine|good)"', bodybad => 'uri=/health?x=1 body=broken',
        expectok => 'uri=/tea expect=200,400-450', expectbad => 'uri=/tea',
        headerok => 'uri=/key header="X-Key: a b" header="X-Other: 1"', headerbad => 'uri=/key',
        hostok => 'uri=/host host=app.test', hostbad => 'uri=/host',
        methodok => 'uri=/head method=HEAD', methodbad => 'uri=/head',
    );
    start($t, map { pool($_, [$up->url . '/base/'],
            "RProxyHealthCheck http $checks{$_} first=wait $OFTEN") } sort keys %checks);
    wait_states($t, map { $_ => /ok$/ ? 'up' : 'unhealthy' } keys %checks);
    cause($t, 'bodybad', qr/the body does not match/);
    cause($t, 'expectbad', qr/status 418 instead of 200-399/);
};

behaviour 'names are looked up as RProxyResolver says', @event, sub {
    my ($t) = @_;
    my $dns = RProxy::DNS->start($t);
    my $up = member($t, 0);
    $dns->set('app.test', A => ['127.0.0.1']);
    start($t, 'RProxyResolver ' . $dns->address,
        pool('here', ['http://app.test:' . $up->port], "RProxyHealthCheck http uri=/health $OFTEN"),
        pool('gone', ['http://gone.test:' . $up->port], "RProxyHealthCheck tcp fall=2 $OFTEN"));
    cause($t, 'gone', qr/no address: /);
    wait_until('a check', undef, sub { return scalar $up->requests });
    wait_states($t, here => 'up', gone => 'unhealthy');
};

behaviour 'TLS is verified as that of requests is', @event, sub {
    my ($t) = @_;
    my ($tls, $plain, $socket, $rude) = ($t->upstream(tls => { names => ['app.test'] }),
        $t->upstream, $t->upstream(unix => 1), $t->upstream->on_connection(sub {
            my ($conn) = @_;
            $conn->write("HTTP/1.1 400 Bad Request\r\n\r\n");
            $conn->read_eof;
        }));
    my $ca = 'ca=' . $t->certs->ca_file;
    my $gone = 'http://127.0.0.1:' . $t->refused_port;
    my %checks = (
        named => [$tls, "http $ca name=app.test"], hosted => [$tls, "http $ca host=app.test:8443"],
        wrongname => [$tls, "http $ca name=other.test"], wrongca => [$tls, 'http name=app.test'],
        unverified => [$tls, 'http verify=off'], handshake => [$tls, "tls $ca name=app.test"],
        notls => [$rude, "tls $ca"], connect => [$plain, 'tcp'], socket => [$socket, 'http'],
        otherport => [$plain, 'http port=' . $t->refused_port],
        asrequests => [$tls, 'http', "RProxyTLS $ca name=app.test"],
    );
    start($t, pool('gone', [$gone], 'RProxyHealthCheck tcp'),
        pool('byname', ['http://localhost:' . $plain->port], "RProxyHealthCheck tcp first=wait $OFTEN"),
        map { pool($_, [$checks{$_}[0]->url], "RProxyHealthCheck $checks{$_}[1] first=wait $OFTEN",
                $checks{$_}[2] // ()) } sort keys %checks);
    my %bad = map { $_ => 1 } qw(wrongname wrongca notls gone otherport);
    wait_states($t, map { $_ => $bad{$_} ? 'unhealthy' : 'up' } keys %checks, qw(gone byname));
    cause($t, 'gone', qr/no connection: Connection refused/);
    cause($t, 'wrongname', qr/TLS: hostname mismatch/i);
    cause($t, 'wrongca', qr/TLS: .*issuer/);
    ok((grep { ($_->{sni} // '') eq 'app.test' } $tls->connections), 'members hear the name');
};

# HTTP/2 as far as a check of gRPC needs it: a service is "good", "bad" or unknown.
sub grpc {
    my ($t, %options) = @_;
    my $frame = sub {
        my ($type, $flags, $id, $payload) = @_;
        return substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $id) . $payload;
    };
    my $fields = sub { return RProxy::HPACK->new->encode(@_) };
    return $t->upstream(%options, sub {
        my ($conn) = @_;
        ($conn->take_exact(24) // '') =~ /^PRI/ or return;
        $conn->write($frame->(4, 0, 0, ''));
        while (defined(my $head = $conn->take_exact(9))) {
            my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $head;
            my $payload = $conn->take_exact($high << 16 | $low) // return;
            $conn->write($frame->(4, 1, 0, '')) if $type == 4 && !($flags & 1);
            next unless $type == 0 && $flags & 1;
            my $service = substr $payload, 7;
            if ($service !~ /good|bad/) {
                $conn->write($frame->(1, 5, $id, $fields->([':status', 200],
                            ['content-type', 'application/grpc'], ['grpc-status', 5])));
                next;
            }
            my $message = "\x08" . ($service eq 'good' ? "\1" : "\2");
            $conn->write($frame->(1, 4, $id, $fields->([':status', 200],
                        ['content-type', 'application/grpc+proto']))
                . $frame->(0, 0, $id, pack('CN', 0, length $message) . $message)
                . $frame->(1, 5, $id, $fields->(['grpc-status', 0])));
        }
    });
}

behaviour 'gRPC services are asked how they are', @event, sub {
    my ($t) = @_;
    my ($plain, $tls, $h1) = (grpc($t), grpc($t, tls => { SSL_alpn_protocols => ['h2'] }),
        $t->upstream);
    $h1->expect_errors;
    my %checks = (good => [$plain, 'service=good'], bad => [$plain, 'service=bad'],
        unknown => [$plain, 'service=x'], tls => [$tls, 'service=good verify=off'],
        h1 => [$h1, '']);
    start($t, map { pool($_, [$checks{$_}[0]->url],
            "RProxyHealthCheck grpc $checks{$_}[1] first=wait $OFTEN") } sort keys %checks);
    wait_states($t, good => 'up', tls => 'up', map { $_ => 'unhealthy' } qw(bad unknown h1));
    cause($t, 'bad', qr/the service is NOT_SERVING/);
    cause($t, 'unknown', qr/grpc-status 5: the service is unknown/);
};

behaviour 'an agent drains, stops and limits its member', @event, sub {
    my ($t) = @_;
    my @lines = ("up 100%\n", "drain\n", "ready\n", "down # disk full\r\n", "up 50%\n", "nonsense\n");
    my @up = map { member($t, $_) } 0, 1;
    my @agents = map { my $number = $_;
        my $agent = $t->upstream;
        $agent->on_connection(sub {
            my ($conn) = @_;
            $conn->write($lines[$number ? $agent->count('next', 'signals') : 0]);
        });
    } 0, 1;
    # One port is the agent's for both members: the second has an address of its own.
    start($t, pool('app', [$up[0]->url]), pool('other', [map { $_->url } @up],
            'RProxyHealthCheck agent interval=100ms port=' . $agents[1]->port),
        'RProxyPass / balancer://other/', 'RProxyPass /app balancer://app/');
    wait_states($t, app => 'up', other => 'up up');
    $agents[1]->signal('next');
    wait_states($t, app => 'up', other => 'drain drain');
    is($t->get('/')->status, 503, 'nobody is there for new requests');
    $agents[1]->signal('next');
    wait_states($t, app => 'up', other => 'up up');
    $agents[1]->signal('next');
    wait_states($t, app => 'up', other => 'down down');
    is($t->get('/app')->status, 200, 'other pools have not asked it');
    $agents[1]->signal('next');
    wait_states($t, app => 'up', other => 'up up');
    $t->wait_log(qr/RP0424: pool other: the agent of member \S+ says: weight 50%, up/);
    $agents[1]->signal('next');
    $agents[1]->wait_connections($agents[1]->connections + 4);
    is(states($t)->{other}, 'up up', 'what nobody understands changes nothing');
};

behaviour 'with first=wait a member is used once it has passed', @both, sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->on_connection(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        $conn->wait_for('go', 60) if $request->target eq '/health';
        $conn->respond(200, ['X-Member' => 0, Connection => 'close'], 'x');
    });
    start($t, pool('app', [$up->url], 'RProxyHealthCheck http uri=/health first=wait timeout=1min'),
        'RProxyPass / balancer://app/');
    $up->wait_connections(1);
    is($t->get('/')->status, 503, 'not before');
    wait_states($t, app => 'unchecked');
    $up->signal('go');
    wait_states($t, app => 'up');
    is(answering($t, 2), '0', 'then it is');
};

behaviour 'when all are down all are used', @both, sub {
    my ($t) = @_;
    my @up = map { member($t, $_) } 0, 1;
    $_->signal('sick') for @up;
    start($t, pool('app', [map { $_->url } @up], "RProxyHealthCheck http uri=/health $OFTEN"),
        'RProxyPass / balancer://app/');
    $t->wait_log(qr/RP0422: pool app: too few members are up, so all are used/);
    wait_states($t, app => 'unhealthy unhealthy');
    is(answering($t, 6), '0 1', 'both serve');
    $up[1]->signal('well');
    $t->wait_log(qr/RP0422: pool app: enough members are up again/);
    is(answering($t, 6), '1', 'only the one that is well');
};

behaviour 'a check that passes ends an ejection', @both, sub {
    my ($t) = @_;
    my @up = map { member($t, $_) } 0, 1;
    start($t, pool('app', [map { $_->url } @up], 'RProxyOutlier errors=1 eject=1h max-eject=1h',
            'RProxyHealthCheck http uri=/health interval=1d fast=300ms fall=100 first=wait timeout=5s'),
        'RProxyPass / balancer://app/');
    wait_states($t, app => 'up up');
    $up[1]->refuse;
    is(answering($t, 6), '0', 'one is gone');
    wait_states($t, app => 'up ejected');
    $up[1]->listen->start;
    wait_until('it to be back', undef, sub { return answering($t, 1) eq '1' });
    wait_states($t, app => 'up up');
};

behaviour 'one child makes the checks, another one when it dies', @event, sub {
    my ($t) = @_;
    $t->mpm_config(StartServers => 3, ServerLimit => 3, ThreadsPerChild => 4,
        MaxRequestWorkers => 12, MinSpareThreads => 4, MaxSpareThreads => 12);
    $t->log_level('debug');
    $t->tolerate(qr/exit signal Killed/);
    my ($quiet, $up) = map { member($t, $_) } 0, 1;
    my $once = 'RProxyHealthCheck http uri=/health first=wait interval=1d fast=1d';
    start($t, (map { pool($_, [$quiet->url], $once) } qw(a b c)),
        pool('app', [$up->url], "RProxyHealthCheck http uri=/health $OFTEN"));
    wait_states($t, map { $_ => 'up' } qw(a b c app));
    is(scalar grep({ $_->target eq '/health' } $quiet->requests), 1,
        'one check for three pools and all children');
    my $leads = qr/pid (\d+)\D.* this child leads from now on/;
    my ($leader) = $t->wait_log($leads) =~ $leads;
    my $size = $t->log_size;
    kill 'KILL', $leader;
    my ($next) = $t->wait_log($leads, 20, $size) =~ $leads;
    isnt($next, $leader, 'another one leads');
    $up->signal('sick');
    like($t->wait_log(qr/RP0420/), qr/pid $next\b/, 'it makes the checks');
    is(scalar(() = $t->error_log =~ /this child leads from now on/g), 2, 'and nobody else');
};

behaviour 'a graceful restart keeps what is known, without checks nothing is down',
    lanes => [qw(event engine prefork)], sub {
    my ($t) = @_;
    $t->log_level('debug');
    my @up = map { member($t, $_) } 0, 1;
    my @members = map { $_->url } @up;
    my @check = "RProxyHealthCheck http uri=/health first=wait $OFTEN";
    my $slow = $t->upstream->on_connection(sub {
        my ($conn) = @_;
        $conn->read_request or return;
        $conn->wait_for('go', 60);
        $conn->respond(200, [Connection => 'close'], 'x');
    });
    my @rest = ('RProxyPass /slow ' . $slow->url, 'RProxyPass / balancer://app/');
    $up[1]->signal('sick');
    start($t, pool('app', \@members, @check), @rest);
    wait_states($t, app => 'up unhealthy');
    my $waiting = $t->begin('GET', '/slow');
    $slow->wait_connections(1);
    my $again = sub {
        my $size = $t->log_size;
        $t->clear_config;
        prepare($t, @_, @rest);
        $t->graceful;
        return $size;
    };
    my $size = $again->(pool('app', \@members, @check, 'RProxyMethod leastconn'));
    is(states($t)->{app}, 'up unhealthy', 'it is still known');
    $t->wait_log(qr/this child leads from now on/, undef, $size);
    $up[1]->signal('well');
    wait_states($t, app => 'up up');
    $up[1]->signal('sick');
    wait_states($t, app => 'up unhealthy');
    $again->(pool('app', \@members));
    is(answering($t, 6), '0 1', 'nobody is down any more');
    $slow->signal('go');
    is($waiting->response->status, 200, 'a request of before is answered');
};

behaviour 'members that come and go at run time are checked', @event, sub {
    my ($t) = @_;
    my @up = map { member($t, $_) } 0, 1;
    my $list = sub {
        my $text = join ', ', map { '{"url": "' . $_->url . '"}' } @_;
        return $t->file('members.json', qq({"members": [$text]}));
    };
    my $file = $list->($up[0]);
    $up[1]->signal('sick');
    start($t, pool('app', [], "RProxyMembersFile $file interval=50ms",
            "RProxyHealthCheck http uri=/health first=wait $OFTEN"), 'RProxyPass / balancer://app/');
    wait_states($t, app => 'up');
    $list->(@up);
    wait_states($t, app => 'up unhealthy');
    is(answering($t, 4), '0', 'the new one is not used');
    $up[1]->signal('well');
    wait_states($t, app => 'up up');
    $list->($up[1]);
    wait_states($t, app => 'up');
    is(answering($t, 4), '1', 'the other one is gone');
};

behaviour 'hostile answers cost a check, and nothing else', @event, sub {
    my ($t) = @_;
    my $more = sub {
        my ($first, $piece) = @_;
        return sub {
            my ($conn) = @_;
            $conn->read_some;
            $conn->write($first);
            1 while length $piece && $conn->write($piece);
        };
    };
    my $ok = "HTTP/1.1 200 OK\r\n";
    my %answers = (
        body => $more->("$ok\r\n", 'x' x 16_384), fields => $more->($ok, "X: y\r\n" x 1_000),
        line => $more->("${ok}X: ", 'x' x 16_384), garbage => $more->("\x00\xff\n" x 100, ''),
        chunks => $more->("${ok}Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n" x 1_000),
        interim => $more->('', "HTTP/1.1 103 Early Hints\r\n\r\n" x 100),
        silent => sub { my ($conn) = @_; $conn->wait_closed(60) },
        settings => $more->('', "\0\0\0\4\0\0\0\0\0" x 100),
    );
    my %up = map { $_ => $t->upstream(record => 0, $answers{$_})->expect_errors } keys %answers;
    start($t, map { pool($_, [$up{$_}->url], 'RProxyHealthCheck '
                . ($_ eq 'settings' ? 'grpc' : 'http body=never')
                . ' first=wait interval=300ms timeout=' . ($_ eq 'silent' ? '300ms' : '20s')) }
            sort keys %answers);
    wait_states($t, map { $_ => 'unhealthy' } keys %answers);
    cause($t, 'silent', qr/timeout: no answer/);
    cause($t, 'garbage', qr/the answer is not HTTP/);
    cause($t, 'fields', qr/the answer's head is too long/);
    my $connections = sub { my $up = $_[0]; return scalar(my @all = $up->connections) };
    my $before = $t->descriptors;
    my %seen = map { $_ => $connections->($up{$_}) } keys %up;
    $up{$_}->wait_connections($seen{$_} + 3) for keys %up;
    cmp_ok($t->descriptors, '<=', $before + keys(%up), 'descriptors are given back');
};

behaviour 'RProxyHealthCheck is checked', @event, sub {
    my ($t) = @_;
    my $A = 'http://10.0.0.1:8080';
    my $i = 0;
    accepted_in($t, 'server_config', map { pool('app' . $i++, [$A], "RProxyHealthCheck $_") }
        'http', 'tcp', 'TLS verify=off', 'grpc service=app.v1.App', 'agent port=9707 interval=2s',
        'http uri=/x?y interval=10s timeout=500ms rise=1 fall=5 fast=2s down-interval=30s panic=50'
        . ' expect=200,204 body="^ok" method=GET header="A: b" host=app.test first=assume-up port=81',
        "http\nRProxyHealthCheck agent port=9707");
    my %refused = (
        'ftp' => qr/"ftp" is unknown; there are agent, grpc, http, tcp, tls/,
        'http uri=x' => qr/must begin with "\/"/, 'http expect=2xx' => qr/write statuses/,
        'http header=X' => qr/"Name: value"/, 'http method=HEAD body=x' => qr/HEAD doesn't bring/,
        'tcp uri=/' => qr/"uri=\/" is not for/, 'http fast=10s' => qr/fast= is longer/,
        'agent' => qr/port of its own/, 'http colour=red' => qr/unknown key/,
        'http ca=/nowhere.pem' => qr/no CA certificate can be read from \/nowhere.pem/,
    );
    refused_in($t, 'server_config', [pool('app', [$A], "RProxyHealthCheck $_")], $refused{$_},
        $_ eq 'http ca=/nowhere.pem' ? qr/<RProxyBalancer/ : qr/RProxyHealthCheck/)
        for sort keys %refused;
    refused_in($t, 'server_config', [pool('app', [$A], 'RProxyHealthCheck http',
                'RProxyHealthCheck tcp')], qr/keep one of them/, qr/HealthCheck tcp/);
    refused_in($t, 'server_config', ['RProxyHealthCheck http'], qr/describes a pool/, qr/Health/);
};

done_testing;
