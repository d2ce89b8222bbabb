#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A backend that is down is asked each time: no request waits for it, none is refused because an
# earlier one was, and what is up is not affected.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;
use RProxy::Wait qw(now seconds);

use constant AT_ONCE => 3;      # seconds: generous, but far from any limit that could fire

sub is_refused_at_once {
    my ($client, $target, $name) = @_;
    my $began = now();
    my $response = $client->get($target);
    is($response->status, 502, "$name: 502");
    like($response->header('Proxy-Status'), qr/; error=connection_refused$/, 'says why');
    ok($response->complete, 'a complete answer');
    cmp_ok(now() - $began, '<', seconds(AT_ONCE), 'at once');
    return;
}

behaviour 'a backend that is down is a 502 at once, each time, and back as soon as it is up', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    my $other = $t->upstream;
    $up->reply_with(200, [], 'back');
    $t->access_format('%U %>s %{rproxy-error}e');
    $t->config('RProxyPass /down/ ' . $up->url . '/', 'RProxyPass /other/ ' . $other->url . '/',
        'RProxyTimeout connect=30s', $t->rule_for_the_rest);
    $t->start;
    my $client = $t->client;
    for my $round (1 .. 3) {
        $up->refuse;
        for my $count (1 .. 5) {
            is_refused_at_once($client, '/down/', "round $round");
            is($client->get('/other/')->status, 200, 'another backend is not affected');
        }
        $up->start;
        my @statuses = map { $client->get('/down/')->status } 1 .. 5;
        is_deeply(\@statuses, [(200) x 5], 'up: in service with the first request');
        is($client->request('POST', '/down/', { body => 'x' })->body, 'back', 'POST as well');
    }
    ok($t->wait_access_log(qr{^/down/ 502 connection-refused$}), 'the log says so');
    ok($t->wait_log(qr/RP0103: /), 'with a message');
};

behaviour 'a backend that was restarted is used with its first request', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $t->config('RProxyPass / ' . $up->url . '/', 'RProxyRetry tries=1');
    $t->start;
    # Connections of all the clients are idle when the backend goes.
    my @clients = map { $t->client } 1 .. 4;
    for my $round (1 .. 3) {
        is($_->get('/')->status, 200, "round $round: before") for @clients;
        $up->refuse;
        is_refused_at_once($_, '/', 'while it is down') for @clients;
        $up->start;
        is($_->get('/')->status, 200, 'afterwards') for @clients;
    }
};

behaviour 'requests that came together while it was down are all answered', sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    $up->refuse;
    my $statuses = sub {
        return map { @$_ } $t->parallel(6, sub {
            my $client = $t->client;
            my @statuses = map { $client->get('/')->status } 1 .. 5;
            $client->close;
            return \@statuses;
        });
    };
    is_deeply([$statuses->()], [(502) x 30], 'down: a 502 for each');
    $up->start;
    is_deeply([$statuses->()], [(200) x 30], 'up: all of them are served');
};

behaviour 'a backend that is up for some requests only', sub {
    my ($t) = @_;
    # Down and up again while a client goes on asking: it sees nothing but 502 and 200, and 200 from
    # the moment on at which the backend is there.
    my $up = $t->upstream;
    $up->refuse;
    $t->config('RProxyPass / ' . $up->url . '/');
    $t->start;
    $up->refuse;
    my $flag = $t->directory . '/is-up';
    my $task = $t->background(sub {
        my $client = $t->client;
        my %seen;
        while (1) {
            my $was_up = -e $flag;
            my $status = $client->get('/')->status // 'none';
            $seen{ $was_up ? 'up' : 'down' }{$status}++;
            $t->file('asked', '');
            last if ($seen{up}{200} // 0) + ($seen{up}{502} // 0) >= 5 || $status eq 'none';
        }
        return \%seen;
    });
    wait_until('requests', undef, sub { -e $t->directory . '/asked' });
    $up->start;
    $t->file('is-up', '');
    my $seen = $task->result;
    ok($seen->{down}{502}, 'refused while it is down');
    is_deeply([grep { !/^(?:502|200)$/ } keys %{ $seen->{down} }], [], 'and nothing else');
    is_deeply($seen->{up}, { 200 => 5 }, 'served as soon as it is up');
};

done_testing;
