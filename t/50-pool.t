#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Connections to upstreams are kept and used again, within the limits of RProxyKeepAlive, and never
# when anything about them is in doubt. Upstreams say in X-Connection on which connection they
# answered.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Wait qw(now);
use Socket qw(IPPROTO_TCP);

use constant TCP_INFO => 11;

# One child, so that there is one pool: in prefork it serves one client at a time.
sub one_child {
    my ($t) = @_;
    $t->mpm_config(StartServers => 1, ServerLimit => 1, MaxRequestWorkers => 1,
        MinSpareServers => 1, MaxSpareServers => 2) if $t->mpm eq 'prefork';
    return;
}

# Answers what it is asked: /STATUS, /chunked, or 200, each with the connection's number; further
# headers as given.
sub numbered {
    my ($t, @headers) = @_;
    my $up = $t->upstream;
    $up->on_request(sub {
        my ($request, $conn) = @_;
        my @with = ('X-Connection' => $conn->number, @headers);
        return [$1, \@with] if $request->target =~ m{/([23]\d\d)$};
        return [200, \@with, $request->body || 'fine'] if $request->target !~ /chunked/;
        return [200, [@with, 'Transfer-Encoding' => 'chunked'], "4\r\nfine\r\n0\r\n\r\n"];
    });
    return $up;
}

# Waits until the exchange of a request is over in every respect, its connection back in the pool;
# $logged lines were in the access log before it. mod_http2 may log a request only when it has
# something else to do on that connection: there mod_status tells, and in_flight says how many other
# requests are still under way.
sub settle {
    my ($t, $logged, $in_flight) = @_;
    if ($t->is_h2) {
        return wait_until('exchanges to end', undef, sub {
            my $client = $t->raw_client(port => $t->{status_port}, tls => 0);
            my ($active) = $client->get('/?auto')->body =~ /^RProxyActive: (\d+)$/m;
            $client->close;
            return $active == ($in_flight // 0);
        });
    }
    return wait_until('a line in the access log', undef,
        sub { return (() = $t->access_log) > $logged });
}

sub start {
    my ($t) = @_;
    if ($t->is_h2) {
        $t->{status_port} = $t->listen;
        $t->extra_modules('status');
        $t->vhost('status.test', ['<Location />', 'SetHandler server-status', '</Location>'],
            port => $t->{status_port}, tls => 0);
    }
    return $t->start;
}

# The response, once its exchange is over.
sub ask {
    my ($t, $client, $method, $target, %options) = @_;
    my $logged = () = $t->access_log;
    my $in_flight = delete $options{in_flight};
    my $response = $client->request($method, $target, \%options);
    settle($t, $logged, $in_flight);
    return $response;
}

# The number of the upstream's connection that answered a GET.
sub connection_of {
    my ($t, $client, $target, $in_flight) = @_;
    my $response = ask($t, $client, 'GET', $target, in_flight => $in_flight);
    return $response->status eq 200 ? $response->header('X-Connection') : $response->status;
}

# In a handler: returns when all that was written, the end included, is in the peer's kernel.
sub delivered {
    my ($conn) = @_;
    return wait_until('bytes to be acknowledged', undef, sub {
        my $info = getsockopt $conn->socket, IPPROTO_TCP, TCP_INFO;
        return unpack('x24 L', $info) == 0;    # tcpi_unacked
    });
}

behaviour 'a connection is used again, whoever asks', sub {
    my ($t) = @_;
    my $up = numbered($t);
    one_child($t);
    $t->access_format('%r %{rproxy-reused}e %{rproxy-upstream}e');
    $t->config('RProxyPass /rule/ ' . $up->url . '/other/', 'RProxyPass / ' . $up->url . '/');
    start($t);
    my @seen;
    for my $round (1 .. 3) {
        my $client = $t->client;
        for my $case (['GET', '/'], ['HEAD', '/'], ['POST', '/', body => 'hello'],
            ['PUT', '/', body => 'x' x 100_000, chunked => 1], ['GET', '/204'], ['GET', '/304'],
            ['GET', '/chunked'], ['GET', '/rule/'], ['DELETE', '/']) {
            my ($method, $target, %options) = @$case;
            my $response = ask($t, $client, $method, $target, %options);
            push @seen, [$method, $target, $response->header('X-Connection')];
        }
        $client->close;
    }
    is(scalar(grep { ($_->[2] // '') eq '1' } @seen), 27, 'one connection for all')
        or diag(explain(\@seen));
    is(scalar $up->connections, 1, 'no other was made');
    my @reused;
    wait_until('all lines of the log', undef, sub {
        @reused = map { / ([01]) 127\.0\.0\.1:\d+$/ ? $1 : () } $t->access_log;
        return @reused == 27;
    });
    is_deeply(\@reused, [0, (1) x 26], 'the log says so');
};

behaviour 'the limits of RProxyKeepAlive hold for each endpoint', sub {
    my ($t) = @_;
    one_child($t);
    my %up;
    my %limits = (none => 'max=0', two => 'requests=2', young => 'age=400ms', idle => 'idle=300ms',
        plain => 'max=9');
    for my $name (sort keys %limits) {
        $up{$name} = $t->upstream(sub {
            my ($conn) = @_;
            while (my $request = $conn->read_request) {
                $conn->respond(200, ['X-Connection' => $conn->number], 'fine');
            }
            $conn->notify('closed');
        });
        $t->config("RProxyPass /$name " . $up{$name}->url, "<Location /$name>",
            "RProxyKeepAlive $limits{$name}", '</Location>');
    }
    $t->config($t->rule_for_the_rest);
    $t->server_config('MaxKeepAliveRequests 0');
    start($t);
    my $client = $t->client;
    my $connections = sub {
        my ($name, $count) = @_;
        return [map { connection_of($t, $client, "/$name/") } 1 .. $count];
    };
    is_deeply($connections->('plain', 3), [1, 1, 1], 'far from the limit');
    is_deeply($connections->('none', 3), [1, 2, 3], 'max=0 keeps none');
    $up{none}->wait_event('closed') for 1 .. 3;
    is_deeply($connections->('two', 5), [1, 1, 2, 2, 3], 'requests=2');
    $up{two}->wait_event('closed') for 1 .. 2;

    is_deeply($connections->('idle', 1), [1], 'idle=: made');
    $up{idle}->wait_event('closed');
    is_deeply($connections->('idle', 1), [2], 'idle=: closed without being asked for');

    my $began = now();
    is_deeply($connections->('young', 1), [1], 'age=: made');
    wait_until('another connection', undef, sub { $connections->('young', 1)->[0] == 2 });
    cmp_ok(now() - $began, '>', 0.35, 'age=: retired although it is busy, not before');
    $up{young}->wait_event('closed');
    $up{young}->wait_event('closed');
    ok(1, 'and closed when nobody asks');
    is_deeply($connections->('plain', 1), [1], 'meanwhile another one is still there');
};

# So many requests at once that wait for the signal go-N, N in order of arrival; released one by
# one, in the order given, each until the log has it.
sub at_once {
    my ($t, $up, $order) = @_;
    my %exchange;
    for (@$order) {
        my $number = $up->connections + 1;
        $exchange{$number} = $t->begin('GET', '/wait');
        $up->wait_event('waits');
    }
    my $in_flight = @$order;
    for my $number (@$order) {
        my $logged = () = $t->access_log;
        $up->signal("go-$number");
        my $response = $exchange{$number}->response;
        is($response->header('X-Connection'), $number, "answer on connection $number");
        settle($t, $logged, --$in_flight);
        $exchange{$number}->close;
    }
    return;
}

sub waiting_upstream {
    my ($t) = @_;
    return $t->upstream(sub {
        my ($conn) = @_;
        my $number = $conn->number;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/wait') {
                $conn->notify('waits');
                $conn->wait_for("go-$number");
            }
            $conn->respond(200, ['X-Connection' => $number], 'fine');
        }
        $conn->notify('closed');
    });
}

# Not in prefork: its children have a connection each.
behaviour 'the most recently used is taken first, the least recently used goes first',
    except => ['prefork'], sub {
    my ($t) = @_;
    my $up = waiting_upstream($t);
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyKeepAlive max=2');
    start($t);
    at_once($t, $up, [2, 4, 1, 3]);
    $up->wait_event('closed') for 1 .. 2;
    my %closed = map { $_->{number} => 1 } grep { $_->{closed} } $up->connections;
    is_deeply([sort keys %closed], [2, 4], 'max=2 keeps the two used last');
    my $client = $t->client;
    is(connection_of($t, $client, '/'), 3, 'the last one used') for 1 .. 3;
    my $exchange = $t->begin('GET', '/wait');
    $up->wait_event('waits');
    is(connection_of($t, $client, '/', 1), 1, 'the other one when it is in use');
    $up->signal('go-3');
    is($exchange->response->header('X-Connection'), 3, 'it ends');
    is(scalar $up->connections, 4, 'no further connection was made');
};

behaviour 'an idle connection that the upstream ended or spoke on is not used', sub {
    my ($t) = @_;
    one_child($t);
    my %unasked = (
        '/close'     => '',
        '/byte'      => 'x',
        '/timeout'   => "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
        '/response'  => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        '/interim'   => "HTTP/1.1 100 Continue\r\n\r\n",
        '/emptyline' => "\r\n",
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            $conn->respond(200, ['X-Connection' => $conn->number], 'fine');
            my $bytes = $unasked{ $request->target } // next;
            $conn->wait_for('now-' . $conn->number);
            $conn->write($bytes) if $bytes ne '';
            $conn->half_close if $bytes eq '';
            delivered($conn);
            $conn->notify('unasked');
            $conn->wait_closed;
            $conn->notify($conn->buffer eq '' ? 'closed' : 'used again');
            return;
        }
    });
    $t->access_format('%r %{rproxy-attempts}e %{rproxy-reused}e');
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyRetry tries=1');
    start($t);
    my $client = $t->client;
    my @targets = sort keys %unasked;
    for my $target (@targets) {
        is(ask($t, $client, 'GET', $target)->body, 'fine', "$target: answered");
        my $connections = $up->connections;
        $up->signal("now-$connections");
        $up->wait_event('unasked');
        my $response = ask($t, $client, 'POST', '/next', body => 'hello');
        is($response->status, 200, 'the next request is answered');
        is($response->body, 'fine', 'with its own answer');
        is($response->header('X-Connection'), $connections + 1, 'on a new connection');
        $up->wait_event('closed');
    }
    is($up->count('used again'), 0, 'no byte more was sent on any of them');
    $client->close;
    wait_until('all lines of the log', undef,
        sub { return @targets == grep { m{^POST /next \S+ 1 0$} } $t->access_log });
    ok(1, 'each was made for its request, in one attempt');
};

behaviour 'a connection that has ended is closed without waiting for a request', sub {
    my ($t) = @_;
    one_child($t);
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        $conn->respond(200, [], 'fine');
        $conn->write('unasked') if $request->target eq '/speak';
        $conn->half_close if $request->target eq '/end';
        $conn->wait_closed;
        $conn->notify('closed');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    start($t);
    for my $target ('/end', '/speak') {
        is($t->get($target)->body, 'fine', $target);
    }
    ok($up->wait_event('closed'), 'closed') for 1 .. 2;
};

behaviour 'Keep-Alive: timeout=N of an upstream is obeyed', sub {
    my ($t) = @_;
    one_child($t);
    my %says = ('/one' => 'timeout=1', '/max' => 'max=5, timeout=1', '/upper' => 'Timeout=1',
        '/zero' => 'timeout=0', '/long' => 'timeout=60, max=100', '/other' => 'max=100',
        '/junk' => 'timeout=, x', '/huge' => 'timeout=99999999999999999999');
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            my $value = $says{ $request->target } // 'timeout=2';
            $conn->respond(200, ['X-Connection' => $conn->number, 'Keep-Alive' => $value], 'fine');
        }
        $conn->notify('closed');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    start($t);
    my $client = $t->client;
    for my $target (sort keys %says) {
        my $kept = $target =~ /long|other|junk|huge/;
        my ($first, $second) = map { connection_of($t, $client, $target) } 1 .. 2;
        is($second, $first + !$kept, "$says{$target}: " . ($kept ? 'used again' : 'too short'));
    }
    my $last = connection_of($t, $client, '/');
    my $closed = sub { return scalar grep { $_->{number} == $last && $_->{closed} }
        $up->connections };
    ok(!$closed->(), 'timeout=2 is kept a while');
    ok(wait_until('it to be closed', undef, $closed), 'and closed before the upstream does it');
};

behaviour 'no connection is used after a broken or ambiguous exchange', sub {
    my ($t) = @_;
    one_child($t);
    my $poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    my $ok = 'HTTP/1.1 200 OK';
    # target => [method, bytes of the answer, status, body; undef: seen broken]
    my %cases = (
        '/behind-length'  => ['GET', "$ok\r\nContent-Length: 4\r\n\r\nfine$poison", 200, 'fine'],
        '/behind-chunks'  => ['GET',
            "$ok\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n$poison", 200, 'fine'],
        '/behind-zero'    => ['GET', "$ok\r\nContent-Length: 0\r\n\r\n$poison", 200, ''],
        '/behind-head'    => ['HEAD', "$ok\r\nContent-Length: 6\r\n\r\npoison", 200, ''],
        '/behind-204'     => ['GET', "HTTP/1.1 204 No Content\r\n\r\n$poison", 204, ''],
        '/behind-304'     => ['GET', "HTTP/1.1 304 Not Modified\r\n\r\n$poison", 304, ''],
        '/says-close'     => ['GET', "$ok\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine",
            200, 'fine'],
        '/close-in-list'  => ['GET', "$ok\r\nConnection: x, CLOSE\r\nContent-Length: 4\r\n\r\nfine",
            200, 'fine'],
        '/old'            => ['GET', "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", 200,
            'fine'],
        '/both'           => ['GET', "$ok\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
                . "\r\n4\r\nfine\r\n0\r\n\r\n", 502],
        '/two-lengths'    => ['GET', "$ok\r\nContent-Length: 4\r\nContent-Length: 6\r\n\r\npoison",
            502],
        '/bad-chunk'      => ['GET', "$ok\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n-\r\n",
            200, undef],
        '/bad-line'       => ['GET', "HTTP/1.1 200 OK\r\nno field\r\n\r\n", 502],
        '/unasked-switch' => ['GET', "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
                . "Connection: Upgrade\r\n\r\n", 502],
    );
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_head) {
            my $target = $request->target;
            if ($target eq '/upload') {
                $conn->respond(200, [], 'early');
            }
            elsif ($cases{$target} || $target eq '/leaver') {
                $conn->write($cases{$target} ? $cases{$target}[1]
                    : "$ok\r\nContent-Length: 100\r\n\r\nfine");
            }
            else {
                $conn->read_body;
                $conn->respond(200, ['X-Connection' => $conn->number], 'fine');
                next;
            }
            $conn->wait_closed;
            $conn->notify($conn->buffer =~ m{/next} ? 'used again' : 'closed');
            return;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyRetry on=off');
    start($t);
    my $goes_on = sub {
        my ($name) = @_;
        $up->wait_event('closed');
        my $connections = $up->connections;
        my $response = $t->request('POST', '/next', { body => 'x' });
        is($response->body, 'fine', "$name: the next request has its own answer");
        is($response->header('X-Connection'), $connections + 1, 'on a new connection');
        # So that this connection is none that the next case could begin on.
        $up->on_connection($up->{handler});
        return;
    };
    for my $target (sort keys %cases) {
        my ($method, undef, $status, $body) = @{ $cases{$target} };
        my $response = $t->request($method, $target);
        # Over HTTP/2 the reset of a broken answer may overtake its head.
        is($response->status, $status, "$target: $status")
            if defined $body || $status != 200 || defined $response->status;
        if (defined $body) {
            is($response->body, $body, 'its body and no more');
            ok($response->complete, 'complete');
        }
        elsif ($status == 200) {
            ok(!$response->complete, 'seen broken');
        }
        else {
            unlike($response->body, qr/poison/, 'nothing of the upstream');
        }
        $goes_on->($target);
    }
    my $upload = $t->begin('POST', '/upload', { stream => 1 });
    $upload->write('the beginning');
    is($upload->head->status, 200, 'an upload is answered early');
    $upload->abort;
    $goes_on->('an unfinished upload');
    my $leaver = $t->begin('GET', '/leaver');
    is($leaver->read_exact(4), 'fine', 'a client leaves in the middle of an answer');
    $leaver->abort;
    $goes_on->('a client that left');
    is($up->count('used again'), 0, 'none was used again');
};

behaviour 'the settings of two routes to one backend both hold, whichever comes first', sub {
    my ($t) = @_;
    one_child($t);
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/late') {
                $conn->notify('asked');
                $conn->wait_for('answer');
            }
            elsif ($request->target eq '/never') {
                $conn->wait_closed(20);
                return;
            }
            $conn->respond(200, ['X-Connection' => $conn->number], 'fine');
        }
    });
    my $url = $up->url;
    $t->config("RProxyPass /hasty $url", "RProxyPass /patient $url", "RProxyPass /fresh $url",
        "RProxyPass /base $url/", '<Location /hasty>', 'RProxyTimeout first-byte=500ms',
        '</Location>', '<Location /patient>', 'RProxyTimeout first-byte=30s', '</Location>',
        '<Location /fresh>', 'RProxyKeepAlive max=0', '</Location>', $t->rule_for_the_rest);
    start($t);
    my $client = $t->client;
    my ($base) = map { connection_of($t, $client, '/base') } 1 .. 2;
    is(connection_of($t, $client, '/hasty/'), $base, 'equal keep-alive settings share a pool');
    my @fresh = map { connection_of($t, $client, '/fresh/') } 1 .. 2;
    is_deeply(\@fresh, [$base + 1, $base + 2], 'max=0 of one route');
    is(connection_of($t, $client, '/base'), $base, 'leaves the other one alone');

    my $late = $t->mpm eq 'prefork' ? undef : $t->begin('GET', '/patient/late');
    $up->wait_event('asked') if $late;
    is($t->get('/hasty/never')->status, 504, 'the short limit of one route') if $late;
    is($client->get('/hasty/never')->status, 504, 'and again');
    if (!$late) {
        $client->close;                 # the only child has time for one client
        $late = $t->begin('GET', '/patient/late');
        $up->wait_event('asked');
    }
    $up->signal('answer');
    is($late->response->status, 200, 'the long limit of the other');
};

behaviour 'another host, scheme or port is another pool', sub {
    my ($t) = @_;
    one_child($t);
    my $up = numbered($t);
    my $other = numbered($t);
    my $port = $up->port;
    $t->config('RProxyPass /ip/ ' . $up->url . '/', "RProxyPass /name/ http://localhost:$port/",
        "RProxyPass /upper/ http://LOCALHOST:$port/x", 'RProxyPass /other/ ' . $other->url . '/',
        $t->rule_for_the_rest);
    start($t);
    my $client = $t->client;
    is(connection_of($t, $client, '/ip/'), 1, 'by address');
    is(connection_of($t, $client, '/other/'), 1, 'another port');
    is(connection_of($t, $client, '/name/'), 2, 'by name');
    is(connection_of($t, $client, '/upper/'), 2, 'by the same name');
    is(connection_of($t, $client, '/ip/'), 1, 'by address again');
};

behaviour 'many requests at once get their own answers on few connections', sub {
    my ($t) = @_;
    my ($clients, $requests) = (8, 25);
    my $up = $t->upstream(record => 0);
    $up->on_request(sub {
        my ($request) = @_;
        return [200, ['X-Target' => $request->target], $request->body x 3];
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    start($t);
    my @wrong = $t->parallel($clients, sub {
        my ($number) = @_;
        my $client = $t->client;
        my @wrong;
        for my $count (1 .. $requests) {
            my $body = "client $number request $count " x ($count * 20);
            my $response = $client->request('POST', "/$number/$count",
                { body => $body, chunked => $count % 2 });
            push @wrong, "/$number/$count: " . ($response->status // $response->error)
                unless $response->body eq $body x 3 && $response->complete
                    && $response->header('X-Target') eq "/$number/$count";
        }
        $client->close;
        return \@wrong;
    });
    is_deeply([map { @$_ } @wrong], [], 'each its own');
    cmp_ok(scalar $up->connections, '<=', 2 * $clients, 'connections');
};

done_testing;
