#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The server's ends: graceful restart and graceful stop answer everything that was asked and then
# let the old child go; a stop is prompt whatever is under way; a child that crashes takes nobody
# along.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Tunnel;
use RProxy::Wait ();
use RProxy::WebSocket;

use constant { MIB => 1_048_576, PARKED => 100 };

my $PIECE = substr join('', map { sprintf "%07x\n", $_ } 0 .. MIB / 8), 0, MIB;
my $REPLY = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply";

sub proxied {
    my ($t, $lines, @upstream) = @_;
    my $up = $t->upstream(@upstream);
    $t->server_config(RProxy::Tunnel->directives($t));
    $t->config('RProxyPass / ' . $up->url . '/', @{ $lines // [] });
    $t->start;
    return $up;
}

# An upstream with so many requests that wait for the signal 'go'.
sub with_parked {
    my ($t) = @_;
    $t->mpm_config(ThreadsPerChild => 4, MaxRequestWorkers => 8, StartServers => 1);
    my $up = proxied($t, [], record => 0)->crowd(reply => $REPLY, hold => 'go');
    my @exchanges = map { $t->begin('GET', "/$_") } 1 .. PARKED;
    wait_until('all requests at the upstream', undef,
        sub { return $up->count('request') == PARKED });
    return ($up, @exchanges);
}

sub wait_gone {
    my (@pids) = @_;
    wait_until('the old child to end', undef, sub { return !grep { kill 0, $_ } @pids });
    return pass('the old child has ended');
}

sub all_answered {
    my (@exchanges) = @_;
    my @wrong = grep { $_ ne 'reply' } map {
        my $response = $_->response;
        $response->complete ? $response->body : $response->error;
    } @exchanges;
    return is_deeply(\@wrong, [], scalar(@exchanges) . ' requests are answered');
}

behaviour 'a graceful restart answers every parked request',
    lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
    my ($t) = @_;
    my ($up, @exchanges) = with_parked($t);
    my $idle = $t->upstream;
    $t->clear_config->config('RProxyPass / ' . $idle->url . '/');
    my @old = $t->children;
    $t->graceful;
    is($t->get('/')->body, "upstream\n", 'the new child serves with the new configuration');
    is(scalar grep({ kill 0, $_ } @old), scalar @old, 'the old one waits for its answers');
    $up->signal('go');
    all_answered(@exchanges);
    is($exchanges[0]->head->header('Connection'), 'close', 'the connections end with them')
        if !$t->is_h2;
    $_->client->wait_closed for @exchanges;
    wait_gone(@old);
};

behaviour 'a graceful stop answers every parked request',
    lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
    my ($t) = @_;
    my ($up, @exchanges) = with_parked($t);
    $t->graceful_stop;
    $t->wait_log(qr/AH00492|graceful/i);
    ok($t->is_running, 'it waits for its answers');
    $up->signal('go');
    all_answered(@exchanges);
    $_->close for @exchanges;
    is($t->wait_exit, 0, 'and ends then');
};

# Something of each kind that keeps a connection busy; returns what has to live on.
sub keep_busy {
    my ($t) = @_;
    my @kinds = map { $t->begin('GET', "/wait/$_") } 1 .. 3;
    # mod_http2 does not wake a stream that waits for a client to read.
    push @kinds, $t->begin('GET', '/large', { client => { receive_buffer => 16_384 } })
        if !$t->has_mod_http2;
    push @kinds, $t->begin('POST', '/upload', { stream => 1,
        headers => ['Content-Length' => 1_000] });
    push @kinds, map { RProxy::Tunnel->open($t, '/tunnel') } 1 .. 2;
    return @kinds;
}

sub busy {
    my ($conn) = @_;
    my $head = $conn->read_head // return;
    $conn->notify('arrived');
    if ($head->target eq '/large') {
        $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 64 * MIB . "\r\n\r\n");
        $conn->write($PIECE, 60) or return for 1 .. 64;
    }
    elsif ($head->target eq '/tunnel') {
        $conn->respond(101, [Upgrade => 'websocket', Connection => 'Upgrade', 'Sec-WebSocket-Accept'
                => RProxy::WebSocket::accept_value($head->header('Sec-WebSocket-Key'))]);
    }
    $conn->wait_closed(60);
    return;
}

behaviour 'a stop is prompt, whatever is under way', sub {
    my ($t) = @_;
    my $up = proxied($t, [], record => 0, \&busy);
    my @kinds = keep_busy($t);
    $up->wait_event('arrived') for @kinds;
    my $begun = RProxy::Wait::now();
    $t->signal('TERM');
    is($t->wait_exit, 0, 'it ends');
    cmp_ok(RProxy::Wait::now() - $begun, '<', RProxy::Wait::seconds(4), 'in a moment');
    unlike($t->error_log, qr/AH0004[5-7]/, 'nobody has to be killed');
};

behaviour 'tunnels end when RProxyTimeout drain= is over', sub {
    my ($t) = @_;
    my $up = proxied($t, ['RProxyTimeout drain=3s'], sub {
        my ($conn) = @_;
        RProxy::WebSocket->server($conn)->echo;
    });
    my @tunnels = map { RProxy::Tunnel->open($t, '/') } 1 .. 5;
    my @sockets = map { RProxy::WebSocket->over($_) } @tunnels;
    $_->send_text('open') for @sockets;
    is($_->read_text, 'open', 'open') for @sockets;
    my @old = $t->children;
    my $size = $t->log_size;
    my $begun = RProxy::Wait::now();
    $t->signal('USR1');
    $t->wait_log(qr/resuming normal operations/, undef, $size);
    $_->send_text('after') for @sockets;
    is($_->read_text, 'after', 'open after the graceful restart') for @sockets;
    for my $tunnel (@tunnels) {
        is($tunnel->read_rest, '', 'ended later');
        $tunnel->close;
    }
    cmp_ok(RProxy::Wait::now() - $begun, '>=', 2.9, 'after as long as they may');
    wait_gone(@old);
};

behaviour 'what is under way survives a graceful restart', sub {
    my ($t) = @_;
    # The worker MPM has no slot for a new child beside the old one's otherwise.
    $t->mpm_config(MaxRequestWorkers => 64) if $t->mpm eq 'worker';
    my $up = proxied($t, [], record => 0, sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            if ($head->method eq 'POST') {
                $conn->notify('upload');
                my $request = $conn->read_body(30);
                $conn->respond(200, [], length($request->body) . ' ' . $request->complete);
                next;
            }
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 32 * MIB . "\r\n\r\n");
            $conn->write($PIECE, 30) or last for 1 .. 32;
        }
    });
    my $download = $t->begin('GET', '/', { client => { receive_buffer => 65_536 } });
    ok($download->read_exact(MIB) eq $PIECE, 'a download begins');
    my $upload = $t->begin('POST', '/', { stream => 1, headers => ['Content-Length' => 4 * MIB] });
    $upload->write($PIECE);
    $up->wait_event('upload');
    my @old = $t->children;
    $t->graceful;
    my $wrong = grep { $download->read_exact(MIB, 30) ne $PIECE } 2 .. 32;
    $download->{taken} = '';
    ok(!$wrong && $download->response->complete, 'the download goes on to its end');
    $upload->write($PIECE) for 2 .. 4;
    $upload->finish;
    is($upload->response->body, 4 * MIB . ' 1', 'the upload too');
    $_->close for $download, $upload;
    wait_gone(@old);
};

# One client that asks again and again, on a connection each time, until the test says stop: counts
# of what it got.
sub ask_until_stopped {
    my ($t, $stop) = @_;
    return $t->background(sub {
        my %got;
        do {
            my $response = eval { $t->get('/') };
            die $@ if !$response && $@ !~ /TLS handshake failed|Connection reset/;
            $got{ !$response ? "connection ended while it was made: $@"
                : $response->complete ? $response->status : $response->error }++;
        } until -e $stop;
        return \%got;
    });
}

sub add_up {
    my (@tasks) = @_;
    my %sum;
    for my $got (map { $_->result(60) } @tasks) {
        $sum{$_} += $got->{$_} for keys %$got;
    }
    return \%sum;
}

behaviour 'three graceful restarts under load cost no response', sub {
    my ($t) = @_;
    my $up = proxied($t)->crowd(reply => $REPLY, delay => 0.02);
    my $stop = $t->directory . '/stop';
    my @tasks = map { ask_until_stopped($t, $stop) } 1 .. 4;
    for my $number (1 .. 3) {
        my $before = $up->count('request');
        $t->graceful;
        wait_until('requests after a graceful restart', undef,
            sub { return $up->count('request') > $before + 10 });
    }
    $t->file('stop', '');
    my $got = add_up(@tasks);
    cmp_ok($got->{200}, '>', 30, 'requests were served');
    is_deeply([grep { $_ ne '200' } keys %$got], [], 'all of them') or diag(explain($got));
};

behaviour 'idle clients are let go at once by a graceful restart',
    lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream->on_request(sub {
        my ($request, $conn) = @_;
        $conn->wait_for('go', 30) if $request->target eq '/wait';
        return [200, [], $request->target];
    });
    $t->config('KeepAliveTimeout 60', 'RProxyPass / ' . $up->url . '/');
    $t->start;
    my @idle = map { $t->client } 1 .. 2;
    is($idle[0]->get('/')->body, '/', 'idle, and nothing is parked');
    my $parked = $t->begin('GET', '/wait');
    $up->wait_requests(2);
    is($idle[1]->get('/')->body, '/', 'idle beside a parked one');
    my @old = $t->children;
    $t->graceful;
    is($_->wait_closed, 'eof', 'closed') for @idle;
    $up->signal('go');
    is($parked->response->body, '/wait', 'the parked one is answered');
    $parked->close;
    wait_gone(@old);
};

behaviour 'a child that is killed takes only its own requests along',
    except => ['tls', 'h2', 'engine-h2'], sub {
    my ($t) = @_;
    $t->tolerate(qr/exit signal Killed/);
    $t->extra_modules('status');
    $t->mpm_config($t->mpm eq 'prefork' ? () : (StartServers => 2, ThreadsPerChild => 8,
        MaxRequestWorkers => 32, MinSpareThreads => 8, MaxSpareThreads => 32));
    my $up = proxied($t, ['RProxyPass /server-status !', '<Location /server-status>',
        'SetHandler server-status', '</Location>'])->crowd(reply => $REPLY, delay => 0.1);
    my $stop = $t->directory . '/stop';
    my @tasks = map { ask_until_stopped($t, $stop) } 1 .. 6;
    for my $number (1 .. 2) {
        my $before = $up->count('request');
        wait_until('load', undef, sub { return $up->count('request') > $before + 10 });
        kill 'KILL', ($t->children)[0];
        $before = $up->count('request');
        wait_until('load afterwards', undef, sub { return $up->count('request') > $before + 20 });
    }
    $t->file('stop', '');
    my $got = add_up(@tasks);
    cmp_ok($got->{200}, '>', 50, 'others are served');
    my @failed = grep { $_ ne '200' } keys %$got;
    is(scalar grep({ !/^connection ended/ } @failed), 0, 'who is not, learns it at once')
        or diag(explain($got));
    my $failures = 0;
    $failures += $got->{$_} for @failed;
    cmp_ok($failures, '<=', 12, 'no more than were under way');
    wait_until('counters without the dead', undef, sub {
        my $status = $t->get('/server-status?auto')->body;
        return $status =~ /^RProxyActive: 0$/m && $status =~ /^RProxyParked: 0$/m;
    });
    pass('the dead do not count as busy');
};

# Not with mod_http2: it closes a session that begins while its child ends, whatever is proxied.
behaviour 'MaxConnectionsPerChild replaces children and loses nothing', except => ['h2'], sub {
    my ($t) = @_;
    $t->access_format('%>s %{pid}P');
    $t->mpm_config(MaxConnectionsPerChild => 10, $t->mpm eq 'prefork' ? () : (
        ServerLimit => 16, ThreadsPerChild => 8, MaxRequestWorkers => 64, MinSpareThreads => 8,
        MaxSpareThreads => 64));
    my $up = proxied($t)->crowd(reply => $REPLY, delay => 0.05);
    my @results = $t->parallel(6, sub {
        my @wrong;
        for my $number (1 .. 12) {
            my $response = $t->get("/$number");
            push @wrong, $response->error // $response->status
                if !$response->complete || $response->body ne 'reply';
        }
        return \@wrong;
    });
    is_deeply([map { @$_ } @results], [], '72 requests, all answered');
    wait_until('all lines in the log', undef, sub { return $t->access_log >= 72 });
    my %served;
    $served{ (split / /)[1] }++ for $t->access_log;
    cmp_ok(scalar keys %served, '>=', 2, 'by several children') or diag(explain(\%served));
};

behaviour 'a child that is replaced answers what is parked first',
    lanes => ['event', 'tls', 'engine', 'engine-tls', 'engine-h2'], sub {
    my ($t) = @_;
    $t->mpm_config(MaxConnectionsPerChild => 12, ServerLimit => 8, ThreadsPerChild => 8,
        MaxRequestWorkers => 32, MinSpareThreads => 8, MaxSpareThreads => 32);
    my $up = proxied($t, [], sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request) {
            if ($request->target eq '/wait') {
                $conn->notify('waiting');
                $conn->wait_for('go', 30);
            }
            $conn->respond(200, [], 'reply') or last;
        }
    });
    my ($old) = $t->children;
    my @exchanges = map { $t->begin('GET', '/wait') } 1 .. 8;
    $up->wait_event('waiting') for @exchanges;
    is($t->get('/')->body, 'reply', 'another request') for 1 .. 8;
    wait_until('another child', undef, sub { return grep { $_ != $old } $t->children });
    is($t->get('/')->body, 'reply', 'a request to the new child');
    ok(kill(0, $old), 'the old one waits for its answers');
    $up->signal('go');
    all_answered(@exchanges);
    $_->close for @exchanges;
    wait_gone($old);
};

done_testing;
