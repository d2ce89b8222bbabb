# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Thousands of idle WebSockets: their memory, whether all live, and what they cost the others.
package Bench::Websockets;
use strict;
use warnings;
use Bench::Crowd;
use Bench::Load;
use Bench::Rounds;

our @figures = qw(rss_kib_tunnel private_kib_tunnel p50_alone p50_beside p99_alone p99_beside
                  alive echo_p99_ms);
our @columns = (['alive', 'alive', 0], ['rss_kib_tunnel', 'RSS KiB each', 1],
                ['private_kib_tunnel', 'private each', 1],
                ['p50_alone', 'p50 ms alone', 3], ['p50_beside', 'p50 beside', 3],
                ['p99_alone', 'p99 ms alone', 3], ['p99_beside', 'p99 beside', 3],
                ['echo_p99_ms', 'echo p99 ms', 2]);

sub run {
    my ($setup, $options, $workload) = @_;
    my $profile = { threads => 16, websockets => 1, connections => $options->{tunnels} + 100 };
    return Bench::Rounds::run_fresh($setup, $options, $workload, $profile,
                                    sub { one_round($setup, $options, @_) });
}

sub one_round {
    my ($setup, $options, $peer) = @_;
    my $ordinary = [Bench::Load::wrk_command($setup, port => $peer->{port}, path => '/delay/0',
                                             connections => 8, seconds => $options->{seconds})];
    my $process = $peer->{process};
    Bench::Load::probe($peer, '/delay/0', 37);
    Bench::Load::measure($peer, $ordinary);
    my $alone = Bench::Load::measure($peer, $ordinary);
    my $before = $process->memory;

    my $crowd = Bench::Crowd->gather("$setup->{bin}/ws_idle", $peer->{port}, '/ws',
                                     $options->{tunnels});
    my $opened = $crowd->{opened};
    my $with = $process->memory;
    my $beside = Bench::Load::measure($peer, $ordinary);
    my $echo = $crowd->again;

    return {
        opened => $opened->{opened}, open_seconds => $opened->{seconds}, alive => $echo->{alive},
        echo_p50_ms => $echo->{p50_ms}, echo_p99_ms => $echo->{p99_ms},
        rss_kib_tunnel => ($with->{rss} - $before->{rss}) / $options->{tunnels},
        private_kib_tunnel => ($with->{private} - $before->{private}) / $options->{tunnels},
        p50_alone => $alone->{p50_ms}, p99_alone => $alone->{p99_ms}, rps_alone => $alone->{rps},
        p50_beside => $beside->{p50_ms}, p99_beside => $beside->{p99_ms},
        rps_beside => $beside->{rps},
        errors => { dead => $options->{tunnels} - $echo->{alive},
                    requests => $alone->{error_count} + $beside->{error_count} },
        error_count => $options->{tunnels} - $echo->{alive}
            + $alone->{error_count} + $beside->{error_count},
    };
}

1;
