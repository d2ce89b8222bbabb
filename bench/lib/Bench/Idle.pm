# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Thousands of idle keep-alive connections: how many there are, and what each takes of memory. Plain
# httpd is the MPM's own share of what our lane takes.
package Bench::Idle;
use strict;
use warnings;
use IPC::Open2;
use JSON::PP qw(decode_json);
use Bench::Load;
use Bench::Peers;
use Time::HiRes qw(sleep);

our @figures = qw(pss_kib_connection rss_kib_connection private_kib_connection idle alive);
our @columns = (['idle', 'idle', 0], ['alive', 'alive', 0],
                ['pss_kib_connection', 'PSS KiB each', 2], ['rss_kib_connection', 'RSS each', 2],
                ['private_kib_connection', 'private each', 2]);

my $path = '/delay/0';

sub workload { "$_[0]{idle} idle connections" }

sub run {
    my ($setup, $options) = @_;
    my @results;
    for my $round (1 .. $options->{rounds}) {
        my @order = @{$options->{peers}};
        push @order, shift @order for 2 .. $round;
        for my $name (@order) {
            my $profile = { threads => 16, connections => $options->{idle} + 100,
                            idle_seconds => 3600, path => $path };
            my $peer = Bench::Peers::start($name, $setup, $setup->{slow}{port}, $profile);
            push @results, { workload => workload($options), peer => $name, round => $round,
                             %{one_round($setup, $options, $peer)} };
            $options->{progress}->($results[-1]);
            Bench::Peers::stop($peer);
        }
    }
    return @results;
}

sub one_round {
    my ($setup, $options, $peer) = @_;
    my $wanted = $options->{idle};
    my $process = $peer->{process};
    Bench::Load::probe($peer, $path, 37);
    # First touches of code and of the allocator are not what a connection takes.
    Bench::Load::run([Bench::Load::load_command($setup, port => $peer->{port}, path => $path,
                                                connections => 16, requests => 50, limit => 10)],
                     60, sub {});
    sleep 0.5;
    my $before = $process->memory;

    my $pid = open2(my $out, my $in, "$setup->{bin}/idle", $peer->{port}, $path, $wanted);
    answer($out);
    # What was needed for the last requests only goes back by itself.
    sleep 2;
    my $with = $process->memory;
    print $in "again\n";
    close $in;
    my ($idle, $alive) = @{answer($out)}{qw(idle alive)};
    waitpid($pid, 0);

    # Fewer than wanted is a figure, not an error: the machine's limits may not allow more, and the
    # MPM closes idle ones when its workers are busy.
    return {
        idle => $idle, alive => $alive,
        errors => { none => $idle ? 0 : 1 }, error_count => $idle ? 0 : 1,
        map { ("${_}_kib_connection" => $idle ? ($with->{$_} - $before->{$_}) / $idle : undef) }
            qw(pss rss private),
    };
}

# A JSON line of idle.
sub answer {
    my ($out) = @_;
    return decode_json(readline($out) // die "bench: idle has ended early\n");
}

1;
