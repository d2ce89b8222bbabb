# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Peers in turn, in rounds: what every mode does with each of its workloads.
package Bench::Rounds;
use strict;
use warnings;
use Bench::Peers;

# $measure gets a peer's name and returns a hash of figures: the list of results.
sub run {
    my ($options, $workload, $measure) = @_;
    my @results;
    for my $round (1 .. $options->{rounds}) {
        # Another one goes first in each round: none always inherits the same neighbour.
        my @order = @{$options->{peers}};
        push @order, shift @order for 2 .. $round;
        for my $name (@order) {
            push @results, { workload => $workload, peer => $name, round => $round,
                             %{$measure->($name)} };
            $options->{progress}->($results[-1]);
        }
    }
    return @results;
}

# The same with a new instance for each measurement, in front of the slow backend; $measure gets it.
sub run_fresh {
    my ($setup, $options, $workload, $profile, $measure) = @_;
    return run($options, $workload, sub {
        my ($name) = @_;
        my $peer = Bench::Peers::start($name, $setup, $setup->{slow}{port}, $profile);
        my $figures = $measure->($peer);
        Bench::Peers::stop($peer);
        return $figures;
    });
}

1;
