#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Children and their engine: they end when they should, without cutting anything, and what one of
# them does is no matter to the others.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Tunnel;
use RProxy::WebSocket;
use POSIX ();
use Time::HiRes ();

my @engine = (lanes => [qw(engine engine-tls engine-h2)]);
my %CHILDREN = (StartServers => 2, ServerLimit => 4, ThreadsPerChild => 8, MaxRequestWorkers => 32,
    MinSpareThreads => 1, MaxSpareThreads => 32);

# The upstream answers /now at once; /slow begins and ends when told; /ws is a WebSocket.
sub proxied {
    my ($t, @lines) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head(60)) {
            if ($head->target =~ /ws/) {
                my $accept = RProxy::WebSocket::accept_value($head->header('Sec-WebSocket-Key'));
                $conn->respond(101, [Upgrade => 'websocket', Connection => 'Upgrade',
                    'Sec-WebSocket-Accept' => $accept]);
                RProxy::WebSocket->over($conn)->echo;
                return;
            }
            $conn->read_body(60);
            if ($head->target =~ /slow/) {
                $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
                $conn->write_chunk('begun ');
                $conn->notify('begun');
                $conn->wait_for('go', 60);
                $conn->write_chunk('ended');
                $conn->write_last_chunk;
                next;
            }
            $conn->respond(200, ['X-Target' => $head->target], 'x' x 1_000) or last;
        }
    });
    $t->config(@lines, 'RProxyPass / ' . $up->url . '/');
    $t->start;
    return $up;
}

# Requests without a pause until the test ends the file; returns how many, or dies at a wrong
# answer. A connection that ends between two requests is no failure.
sub load {
    my ($t, $name) = @_;
    my $stop = $t->directory . "/stop-$name";
    return { stop => sub { $t->file("stop-$name", '') }, tasks => [map {
        my $number = $_;
        $t->background(sub {
            my $count = 0;
            my $client;
            while (!-e $stop) {
                $client //= $t->client;
                my $response = $client->get("/now/$number/$count");
                my $closed = $t->is_h2 ? defined $client->goaway
                    : ($response->header('Connection') // '') =~ /close/;
                if (!defined $response->status) {
                    die "no answer on a new connection\n" if !$client->{used};
                    die "no answer though no GOAWAY came before\n" if $t->is_h2;
                    $client = undef;
                    next;
                }
                die "wrong answer: " . $response->status . "\n" if $response->status ne '200'
                    || !$response->complete
                    || $response->header('X-Target') ne "/now/$number/$count";
                $client->{used} = 1;
                $client = undef if $closed;
                $count++;
            }
            return $count;
        });
    } 1 .. 4] };
}

# Waits until each of the load's clients goes on; then it ends.
sub end_load {
    my ($load) = @_;
    $load->{stop}->();
    my @counts = map { scalar $_->result } @{ $load->{tasks} };
    ok(!grep({ $_ == 0 } @counts), "every client was served: @counts");
    return;
}

behaviour 'graceful restarts cut nothing, and the children before end', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    my @old = $t->children;
    my $load = load($t, 'graceful');
    my @slow = map { $t->begin('GET', "/slow/$_") } 1 .. 5;
    $_->read_exact(6) for @slow;
    my $tunnel = RProxy::Tunnel->open($t, '/ws');
    my $socket = RProxy::WebSocket->over($tunnel);
    my $idle = $t->client;
    is($idle->get('/now')->status, 200, 'a connection that will be idle');
    for (1 .. 3) {
        $t->graceful;
        $socket->send_text("still here $_");
        is($socket->read_text, "still here $_", 'the tunnel goes on');
    }
    is($idle->wait_closed, 'eof', 'the idle one is closed');
    $up->signal('go');
    is($_->response->body, 'begun ended', 'a download goes on') for @slow;
    $socket->send_close(1000, 'bye');
    $socket->read_frame;
    $tunnel->close;
    end_load($load);
    my %old = map { $_ => 1 } @old;
    wait_until('the first children to end', undef, sub { return !grep { $old{$_} } $t->children });
    pass('and the first children are gone');
};

behaviour 'graceful stop lets requests end', @engine, sub {
    my ($t) = @_;
    my $up = proxied($t);
    my @slow = map { $t->begin('GET', "/slow/$_") } 1 .. 5;
    $_->read_exact(6) for @slow;
    my $idle = $t->client;
    is($idle->get('/now')->status, 200, 'a connection that is idle');
    $t->graceful_stop;
    is($idle->wait_closed, 'eof', 'the idle one is closed');
    $up->signal('go');
    is($_->response->body, 'begun ended', 'a download goes on') for @slow;
    is($t->wait_exit, 0, 'then the server ends');
};

# With files beside the engine has no HTTP/2.
behaviour 'stop ends at once, whatever is under way', lanes => [qw(engine engine-tls)], sub {
    my ($t) = @_;
    my $up = proxied($t, 'RProxyPass /static !');
    $up->expect_errors;
    $t->file('htdocs/static/large', 'x' x 30_000_000);
    my @slow = map { $t->begin('GET', "/slow/$_") } 1 .. 5;
    $_->read_exact(6) for @slow;
    my @open = (RProxy::Tunnel->open($t, '/ws'), map { $t->raw_client } 1 .. 5);
    $open[1]->get('/now');
    $open[2]->write('GET /half');
    $open[3]->write("PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    my $reader = $t->begin('GET', '/static/large', { client => { receive_buffer => 65_536 } });
    $reader->head;
    $t->stop;
    is($t->exit_status, 0, 'ended by itself');
    ok(!$t->is_running, 'is gone');
};

behaviour 'MaxConnectionsPerChild', @engine, sub {
    my ($t) = @_;
    $t->mpm_config(MaxConnectionsPerChild => 20);
    my $up = proxied($t, 'RProxyTimeout drain=300s');  # however long the MPM takes for new ones
    my %seen;
    my $tunnel = RProxy::Tunnel->open($t, '/ws');
    my $socket = RProxy::WebSocket->over($tunnel);
    my @wrong;
    for my $number (1 .. 100) {
        $seen{$_} = 1 for $t->children;
        my $response = $t->get("/now/$number");
        push @wrong, $number if ($response->status // 0) ne '200';
    }
    is("@wrong", '', 'each connection is served');
    cmp_ok(scalar keys %seen, '>', 2, 'by several children');
    $socket->send_text('still here');
    is($socket->read_text, 'still here', 'a tunnel outlives its child\'s share');
    $tunnel->close;
};

behaviour 'several children with several loops each', @engine, sub {
    my ($t) = @_;
    $t->mpm_config(%CHILDREN);
    for my $threads (1, 2, 4) {
        $t->engine_threads($threads);
        $threads == 1 ? proxied($t) : $t->graceful;
        my @children = $t->children;
        my @wrong = grep { $_ ne '' } $t->parallel(12, sub {
            my ($number) = @_;
            my $client = $t->client;
            for my $count (1 .. 40) {
                my $response = $client->get("/now/$number/$count");
                return $response->status // $response->error
                    if ($response->header('X-Target') // '') ne "/now/$number/$count";
                $client = $t->client if $count % 10 == 0;
            }
            return '';
        });
        is("@wrong", '', "$threads loops in each of " . @children . ' children');
    }
};

behaviour 'a child that is killed takes no other with it', @engine, sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    $t->mpm_config(%CHILDREN);
    my $up = proxied($t);
    $up->expect_errors;
    wait_until('two children', undef, sub { return $t->children >= 2 });
    my @sockets = map { RProxy::WebSocket->over(RProxy::Tunnel->open($t, '/ws')) } 1 .. 24;
    my @children = $t->children;
    kill 'KILL', $children[0];
    wait_until('a new child', undef, sub {
        my @now = $t->children;
        return @now >= 2 && !grep { $_ == $children[0] } @now;
    });
    my $alive = 0;
    for my $socket (@sockets) {
        my $lived = eval { $socket->send_text('there?'); $socket->read_text eq 'there?' };
        $alive++ if $lived;
    }
    cmp_ok($alive, '<', 24, "its connections are gone, $alive live");
    is($t->get("/now/$_")->status, 200, 'new ones are served') for 1 .. 10;
    $_->stream->close for @sockets;
};

behaviour 'in debugging mode the pipeline serves', lanes => ['engine'], sub {
    my ($t) = @_;
    $t->access_format('%{rproxy-lane}e');
    # It does not say that it is ready; connections wait until it is.
    @{ $t->server }{qw(arguments started_log)} = (['-X'], qr/RP031[12]/);
    my $up = proxied($t);
    is($t->get('/now')->status, 200, 'a request');
    like($t->wait_access_log(qr/./), qr/^pipeline$/, 'in the pipeline');
};

# ThreadsPerChild and one more for each idle worker: others wait in the kernel's queue.
behaviour 'connections beyond the most a child takes are served later', @engine, sub {
    my ($t) = @_;
    $t->mpm_config(ThreadsPerChild => 2, MaxRequestWorkers => 2, MaxSpareThreads => 2,
        ServerLimit => 1, AsyncRequestWorkerFactor => 1);
    my $up = proxied($t, 'KeepAliveTimeout 300');
    my @tasks = map {
        my $number = $_;
        $t->background(sub { return $t->get("/slow/$number")->body });
    } 1 .. 12;
    $up->wait_event('begun');
    $up->signal('go') for @tasks;    # the n-th is for the n-th request of each connection
    my @bodies = map { scalar $_->result(30) } @tasks;
    is(scalar(grep { $_ eq 'begun ended' } @bodies), 12, 'all are served in the end');
};

behaviour 'a client that stays after its connection was ended costs nothing', @engine, sub {
    my ($t) = @_;
    proxied($t, 'KeepAliveTimeout 1');
    my $client = $t->client;
    is($client->get('/now')->status, 200, 'served');
    is($client->wait_closed, 'eof', 'ended');
    my $before = $t->cpu;
    Time::HiRes::sleep(0.5);
    cmp_ok($t->cpu - $before, '<=', 20, 'next to no CPU while the server waits for its end');
};

# sched_getattr(2): the slice in ns of a thread, 0: this process. 0 where the kernel knows of none.
my %GETATTR = ('x86_64' => 315, 'aarch64' => 275);

sub slice_of {
    my ($thread) = @_;
    my $number = $GETATTR{ (POSIX::uname())[4] } // return 0;
    my $attributes = "\0" x 48;
    return 0 if syscall($number, 0 + $thread, $attributes, length $attributes, 0) != 0;
    return unpack 'x24 Q', $attributes;
}

behaviour 'threads that compute for long let the loops go first', @engine, sub {
    my ($t) = @_;
    plan(skip_all => 'this kernel has no slices that can be set') if slice_of(0) == 0;
    $t->config('RProxyPass / ' . $t->upstream->url . '/');
    $t->start;
    is($t->get('/')->status, 200, 'it serves');
    my @slices = map { slice_of(m{(\d+)$}) } glob '/proc/' . $t->child_pid . '/task/*';
    is(scalar(grep { $_ == 200_000 } @slices), 1, 'its loop has asked for short slices');
};

done_testing;
