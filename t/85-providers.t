#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What other modules bring through include/mod_rproxy_balancer.h: a method, a kind of health check,
# a provider of members. The module is t/modules/mod_test_providers.c.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Platform;
use RProxy::Pools;
use RProxy::Test;

# Not the engine: there a module it doesn't know means the pipeline.
my @lanes = (lanes => [qw(event prefork)]);

# A server with the module and the pool "app".
sub start {
    my ($t, @pool) = @_;
    my $built = RProxy::Platform::build_directory() =~ s{/\.libs$}{}r;
    my $module = "$built/t/modules/.libs/mod_test_providers.so";
    die "$module is missing: run make check\n" if !-e $module;
    $t->server_config("LoadModule test_providers_module \"$module\"", '<RProxyBalancer app>', @pool,
        '</RProxyBalancer>', 'RProxyPass / balancer://app/');
    return status_vhost($t)->start;
}

behaviour 'a method', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    start($t, 'RProxyMethod last', map { 'RProxyMember ' . $_->url } @up);
    is_deeply(spread($t, 4), { 2 => 4 }, 'the last one');
    $up[2]->refuse;
    is_deeply(spread($t, 4), { 1 => 4 }, 'the last one that can be had');
};

behaviour 'a kind of health check', @lanes, sub {
    my ($t) = @_;
    my ($up) = members($t, 1);
    my $checked = $t->upstream;
    $checked->on_connection(sub {
        my ($conn) = @_;
        $conn->notify($conn->read_until(qr/\n/) =~ s/\n//r);
        my $is_ill = $checked->count('ill', 'signals') > $checked->count('fine', 'signals');
        $conn->write($_) for $is_ill ? 'ill' : 'fi', $is_ill ? "\n" : "ne\n";
        $conn->wait_closed(20);
    });
    start($t, 'RProxyMember ' . $up->url, 'RProxyHealthCheck word fine first=wait interval=100ms '
        . 'fast=100ms timeout=5s port=' . $checked->port);
    my $is_now = sub {
        my ($state) = @_;
        return wait_until("it to be $state", undef,
            sub { return pool_status($t)->{app}{members}[0]{state} eq $state });
    };
    ok($is_now->('up'), 'it passes');
    is($t->get('/')->header('X-Member'), 0, 'and gets requests');
    $checked->wait_event('how is 127.0.0.1:' . $up->port);
    $checked->signal('ill');
    ok($is_now->('unhealthy'), 'it fails');
    $t->wait_log(qr/RP0420: pool app: .*it is ill/);
    $checked->signal('fine');
    ok($is_now->('up'), 'it passes again');
    my ($code, $output) = do {
        $t->server_config('<RProxyBalancer b>', 'RProxyMember http://127.0.0.1',
            'RProxyHealthCheck word', '</RProxyBalancer>');
        $t->httpd_test;
    };
    isnt($code, 0, 'it reads its words');
    like($output, qr/RProxyHealthCheck word: it needs one word/);
};

# The provider connects, says for which pool, and reads a line of URLs each time it is asked.
behaviour 'a provider of members, whose descriptor is watched', @lanes, sub {
    my ($t) = @_;
    my @up = members($t, 3);
    my @url = map { $_->url } @up;
    my $writer = $t->upstream(sub {
        my ($conn) = @_;
        $conn->notify('asked for ' . $conn->read_until(qr/\n/) =~ s/\n//r);
        if ($conn->number == 1) {
            $conn->write("$url[0]\n");
            $conn->wait_for('more');
            $conn->write("$url[0] $url[1]");
            $conn->notify('begun');
            $conn->wait_for('rest');
            $conn->write("\n");
            return $conn->wait_for('end');
        }
        $conn->wait_for('again');
        # Two at once: the second one is read when it asks again.
        $conn->write("$url[1]\n$url[2]\n");
        $conn->wait_closed(60);
        $conn->notify('left');
    });
    start($t, 'RProxyDiscover lines ' . $writer->port);
    becomes($t, { 0 => 2 }, 'what is written first');
    $writer->wait_event('asked for app');
    $writer->signal('more');
    $writer->wait_event('begun');
    is_deeply(spread($t, 2), { 0 => 2 }, 'a part of a line is nothing');
    $writer->signal('rest');
    becomes($t, { 0 => 2, 1 => 2 }, 'a line that came in pieces');
    $writer->signal('end');
    $t->wait_log(qr/RP0426: pool app: lines \d+: no members are found, .*whoever writes has ended/);
    is_deeply(spread($t, 4), { 0 => 2, 1 => 2 }, 'the last ones stay');
    $writer->signal('again');
    becomes($t, { 2 => 2 }, 'it has connected again');
    $t->wait_log(qr/RP0427: pool app: lines \d+: members are found again/);
    $t->graceful;
    ok($writer->wait_event('left'), 'the child that asked has given its descriptor back');
    becomes($t, { 2 => 2 }, 'and another one asks');
    my $before = $t->log_size;
    $writer->refuse;
    $t->wait_log(qr/RP0426: pool app: .*(?:has ended|nobody)/, undef, $before);
    is_deeply(spread($t, 2), { 2 => 2 }, 'nobody listens: the last ones stay');
};

done_testing;
