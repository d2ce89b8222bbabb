#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A client that leaves cancels its upstream at once, whatever the exchange was waiting for, unless
# RProxyIgnoreClientAbort lets the upstream finish. All limits are longer than what is waited here.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

use constant MIB => 1_048_576;

# How a client leaves: reset of its connection (HTTP/2: of the stream), or its end.
sub leave {
    my ($t, $exchange, $how) = @_;
    $how eq 'abort' ? $exchange->abort : $exchange->close;
    return;
}

behaviour 'a client that leaves cancels the upstream at once', sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $head = $conn->read_head;
        my ($where) = $head->target =~ m{^/(\w+)};
        if ($where eq 'body') {
            $conn->respond(200, ['Transfer-Encoding' => 'chunked']);
            $conn->write_chunk('begun');
        }
        elsif ($where eq 'upload') {
            $conn->read_body_piece;
        }
        elsif ($where eq 'blocked') {
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 64 * MIB . "\r\n\r\n");
            $conn->notify($head->target);
            1 while $conn->write('x' x MIB, 30);
            $conn->notify('gone');
            return;
        }
        $conn->notify($head->target);
        1 while defined $conn->read_some(30);
        $conn->notify('gone');
    });
    $t->access_format('%r %>s %{rproxy-error}e');
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $how ('abort', 'end') {
        for my $where ('head', 'body', 'upload', 'blocked') {
            my $target = "/$where/$how";
            my $exchange = $t->begin($where eq 'upload' ? 'PUT' : 'GET', $target, {
                stream => $where eq 'upload', client => { receive_buffer => 65_536 } });
            $exchange->write('hello') if $where eq 'upload';
            $exchange->head if $where =~ /body|blocked/;
            $up->wait_event($target);
            leave($t, $exchange, $how);
            $up->wait_event('gone');
            ok(1, "$target: the upstream is told");
            # One that ends in the middle of its upload has sent a broken body.
            $t->wait_access_log(qr{ \Q$target\E HTTP/\S+ \d+ (?:client-gone|request-body)$});
        }
    }
    is($t->memory->{rss} > 0, 1, 'the child lives');
};

behaviour 'a client that leaves while the upstream is busy with others frees nothing twice', sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        $conn->notify('request');
        1 while defined $conn->read_some(30);
        $conn->notify('gone');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $count = $t->mpm eq 'prefork' ? 4 : 12;
    my @exchanges = map { $t->begin('GET', "/$_") } 1 .. $count;
    $up->wait_event('request') for 1 .. $count;
    leave($t, $_, 'abort') for @exchanges;
    $up->wait_event('gone') for 1 .. $count;
    is($up->count('gone'), $count, 'each upstream connection ended');
};

behaviour 'RProxyIgnoreClientAbort on lets the upstream finish', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request(30)) {
            my ($where) = $request->target =~ m{^/(\w+)};
            if ($where eq 'next') {
                $conn->respond(200, [], 'connection ' . $conn->number);
                next;
            }
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 4 * MIB . "\r\n\r\n")
                if $where eq 'body';
            $conn->notify($request->target);
            $conn->wait_for($request->target);
            $conn->write("HTTP/1.1 200 OK\r\nContent-Length: " . 4 * MIB . "\r\n\r\n")
                if $where eq 'head';
            $conn->notify($conn->write('x' x (4 * MIB), 30) ? 'finished' : 'cut');
        }
    });
    $t->access_format('%r %>s %{rproxy-error}e');
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyIgnoreClientAbort on');
    $t->mpm_config(StartServers => 1, MinSpareServers => 1, MaxSpareServers => 1, ServerLimit => 1,
        MaxRequestWorkers => 1) if $t->mpm eq 'prefork';
    $t->start;
    for my $how ('abort', 'end') {
        for my $where ('head', 'body') {
            my $target = "/$where/$how";
            my $exchange = $t->begin('GET', $target);
            $up->wait_event($target);
            is($exchange->head->status, 200, 'begun') if $where eq 'body';
            leave($t, $exchange, $how);
            $up->signal($target);
            $up->wait_event('finished');
            ok(1, "$target: the upstream could send everything");
            $t->wait_access_log(qr{ \Q$target\E });
        }
    }
    is($up->count('cut'), 0, 'none was cut');
    is($t->get('/next')->body, 'connection 1', 'all over one upstream connection');
};

behaviour 'half-closing is leaving', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(record => 0, sub {
        my ($conn) = @_;
        my $request = $conn->read_request or return;
        $conn->notify('request');
        1 while defined $conn->read_some(30);
        $conn->notify('gone');
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->raw_client;
    my $exchange = $client->begin('GET', '/', {});
    $up->wait_event('request');
    $client->half_close;
    $up->wait_event('gone');
    ok(1, 'the upstream is told');
    like($client->wait_closed, qr/eof|reset|cut/, 'the connection ends');
};

behaviour 'with RProxyIgnoreClientAbort on, one that half-closes gets its answer',
    except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $request = $conn->read_request(30)) {
            $conn->notify($request->target);
            $conn->wait_for($request->target) if $request->target eq '/wait';
            $conn->respond(200, [], 'x' x MIB);
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyIgnoreClientAbort on');
    $t->start;
    for my $target ('/wait', '/quick') {
        my $client = $t->raw_client;
        my $exchange = $client->begin('GET', $target, {});
        $up->wait_event($target) if $target eq '/wait';
        $client->half_close;
        $up->signal($target);
        my $response = $exchange->response;
        is($response->status, 200, "$target: answered");
        is(length $response->body, MIB, 'whole');
        ok($response->complete, 'complete');
        is($client->wait_closed, 'eof', 'then the connection ends');
    }
};

done_testing;
