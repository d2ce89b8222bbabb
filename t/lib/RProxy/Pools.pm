# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Pools: their members, who of these answers, and what mod_status says of them.
package RProxy::Pools;
use strict;
use warnings;
use Exporter 'import';
use Test::More;
use RProxy::Wait qw(wait_until);

our @EXPORT = qw(members spread becomes status_vhost pool_status);

# Upstreams that say in X-Member who they are: 0, 1 ...; arguments as for upstream().
sub members {
    my ($t, $count, @arguments) = @_;
    return map {
        my $number = $_;
        $t->upstream(@arguments)->reply_with(200, ['X-Member' => $number], 'x')
    } 0 .. $count - 1;
}

# Who answers so many requests: { member => how many }; instead of a member the status, where none
# does.
sub spread {
    my ($t, $requests, $path, @headers) = @_;
    my %got;
    for (1 .. $requests) {
        my $response = $t->get($path // '/', @headers);
        $got{ $response->header('X-Member') // $response->status }++;
    }
    return \%got;
}

# Waits until exactly these have their share of as many requests.
sub becomes {
    my ($t, $wanted, $name) = @_;
    my ($sum, $got) = (0);
    $sum += $_ for values %$wanted;
    # No die: is_deeply says what came instead.
    eval {
        wait_until($name, undef, sub {
            $got = spread($t, $sum);
            return join(' ', map { "$_=$got->{$_}" } sort keys %$got)
                eq join(' ', map { "$_=$wanted->{$_}" } sort keys %$wanted);
        });
    };
    return is_deeply($got, $wanted, $name);
}

# mod_status on a port of its own, for pool_status(); again after clear_config().
sub status_vhost {
    my ($t) = @_;
    if (!$t->{status_port}) {
        $t->{status_port} = $t->listen;
        $t->extra_modules('status');
    }
    $t->vhost('status.test', ['RProxyPass / !', '<Location />', 'SetHandler server-status',
            '</Location>'], port => $t->{status_port}, tls => 0);
    return $t;
}

# What mod_status says: { pool => { key => value, members => [{ url, key => value }],
# 'in-flight' => of all members, without sign } }.
sub pool_status {
    my ($t) = @_;
    my $client = $t->raw_client(port => $t->{status_port}, tls => 0);
    my $text = $client->request('GET', '/?auto', { headers => [Host => 'status.test'] })->body;
    $client->close;
    my %pools;
    while ($text =~ /^RProxyPool-(\w+): (.*)$/mg) {
        $pools{$1} = { map({ split /=/ } split / /, $2), members => [], 'in-flight' => 0 };
    }
    while ($text =~ /^RProxyMember-(\w+)-(\S+): (.*)$/mg) {
        my $member = { url => $2, map { split /=/ } split / /, $3 };
        push @{ $pools{$1}{members} }, $member;
        $pools{$1}{'in-flight'} += abs $member->{'in-flight'};
    }
    return \%pools;
}

1;
