#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# An upstream that answers before the upload is complete: the client gets the answer, whatever the
# upstream does with its connection afterwards, and no rest of the upload is taken for a request.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

use constant UPLOAD => 16 * 1_048_576;    # more than all buffers on the way hold

my $ANSWER = 'too large ' x 500;

# What an upstream does once it has answered /HOW; true: it goes on with the connection.
my %AFTERWARDS = (
    keep  => sub { my ($conn) = @_; $conn->wait_closed(30); return 0 },
    drain => sub { my ($conn) = @_; 1 while $conn->read_body_piece(30) ne ''; return 1 },
    close => sub { return 0 },
    reset => sub { my ($conn) = @_; $conn->reset; return 0 },
);

# Reads so much of the body, answers, and does the rest; true: goes on with the next request.
# /full is read completely and gets its body's length.
sub early_upstream {
    my ($t, $amount) = @_;
    return $t->upstream(record => 0, sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            my ($how) = $head->target =~ m{^/(\w+)};
            if (!$AFTERWARDS{$how}) {
                $conn->respond(200, [], 'got ' . length $conn->read_body->body);
                next;
            }
            my $read = 0;
            $read += length $conn->read_body_piece while $read < $amount;
            $conn->respond(413, [$how eq 'close' ? (Connection => 'close') : ()], $ANSWER);
            $AFTERWARDS{$how}->($conn) or return;
        }
    });
}

# A body that would never end by itself soon, as long as the proxy takes it.
sub upload {
    my ($size) = @_;
    my $block = "POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" x 1_000;
    return sub {
        return undef if $size <= 0;
        my $piece = substr $block, 0, $size;
        $size -= length $piece;
        return $piece;
    };
}

sub check_connection {
    my ($t, $client, $response, $how) = @_;
    if ($t->is_h2) {
        is($client->request('PUT', '/full', { body => 'hello' })->body, 'got 5',
            'the client connection goes on');
        return;
    }
    is($response->header('Connection'), 'close', 'the client is told that the connection ends');
    like($client->wait_closed, qr/^(?:eof|reset)$/, 'it does');
    is($client->buffer, '', 'with nothing behind the answer');
    is($t->request('PUT', '/full', { body => 'hello' })->body, 'got 5', 'the next one is served');
    return;
}

for my $amount (0, 100_000) {
    my $when = $amount ? 'in the middle of' : 'before';
    behaviour "an answer $when a long upload reaches the client", sub {
        my ($t) = @_;
        my $up = early_upstream($t, $amount);
        $t->config('RProxyPass / ' . $up->url . '/');
        $t->start;
        for my $how (sort keys %AFTERWARDS) {
            my $client = $t->client;
            my $length = $how eq 'drain' ? [] : ['Content-Length' => UPLOAD];
            my $response = $client->request('PUT', "/$how", {
                headers => $length, body => upload(UPLOAD), timeout => 30 });
            is($response->status, 413, "$how: the answer");
            is($response->body, $ANSWER, 'whole');
            ok($response->complete, 'complete');
            check_connection($t, $client, $response, $how);
            $client->close;
        }
        is(scalar(grep { /smuggled/ } $t->access_log), 0, 'no request out of a body');
    };
}

# Something has come; over HTTP/2 that may be a window's update.
sub is_answered {
    my ($client, $exchange) = @_;
    return $exchange->has_head if $exchange->version eq '2';
    return !$client->quiet_for(0);
}

behaviour 'an upload that keeps flowing does not hold the answer back', except => ['h2'], sub {
    my ($t) = @_;
    my $up = early_upstream($t, 1);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    my $exchange = $client->begin('PUT', '/drain', { stream => 1 });
    my $block = 'x' x 1_048_576;
    my $written = 0;
    while (!is_answered($client, $exchange) && $written < 512) {
        $exchange->write($block) or last;
        $written++;
    }
    cmp_ok($written, '<', 512, 'the answer came before the end of the upload');
    is($exchange->response->status, 413, 'and is the one of the upstream');
};

behaviour 'an answer to a client that pauses its upload comes at once', sub {
    my ($t) = @_;
    my $up = early_upstream($t, 5);
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    for my $how (sort keys %AFTERWARDS) {
        for my $framing ([], ['Content-Length' => 1_000]) {
            my $client = $t->client;
            my $exchange = $client->begin('PUT', "/$how", { stream => 1, headers => $framing });
            $exchange->write('hello');
            my $response = $exchange->response;
            is($response->status, 413, "$how: the answer");
            is($response->body, $ANSWER, 'whole');
            ok($response->complete, 'complete');
            check_connection($t, $client, $response, $how);
            $client->close;
        }
    }
};

behaviour 'an answer that does not wait for a short body keeps both connections', sub {
    my ($t) = @_;
    my $up = $t->upstream(sub {
        my ($conn) = @_;
        while (my $head = $conn->read_head) {
            $conn->fill('the body') if $conn->buffer eq '';
            $conn->respond(200, [], 'quick');
            $conn->read_body;
        }
    });
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    my $client = $t->client;
    for my $number (1 .. 5) {
        my $response = $client->request('POST', "/$number", { body => 'hello' });
        is($response->body, 'quick', "answer $number");
        isnt($response->header('Connection'), 'close', 'the connection goes on');
    }
    $client->close;
    is_deeply([map { $_->body } $up->requests], [('hello') x 5], 'the bodies were sent');
    is(scalar $up->connections, 1, 'over one upstream connection');
};

done_testing;
