# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Waiting with a deadline: every wait of the harness goes through here or takes its seconds from
# here, so that one scale covers slow builds (sanitizers, valgrind).
package RProxy::Wait;
use strict;
use warnings;
use Carp ();
use Exporter 'import';
use Time::HiRes ();

our @EXPORT_OK = qw(seconds wait_until now);

use constant {
    DEFAULT_SECONDS => 30,
    POLL_SECONDS    => 0.005,
};

sub now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

# RPROXY_TIMEOUT_SCALE overrides the factor: useful on a very busy machine.
sub scale {
    return $ENV{RPROXY_TIMEOUT_SCALE} if $ENV{RPROXY_TIMEOUT_SCALE};
    return $ENV{RPROXY_PRELOAD} || $ENV{RPROXY_VALGRIND} ? 4 : 1;
}

# The scaled number of seconds; undef means the default.
sub seconds {
    my ($seconds) = @_;
    return ($seconds // DEFAULT_SECONDS) * scale();
}

# Polls $condition until it is true and returns its value; dies, naming $what, when time is up.
sub wait_until {
    my ($what, $seconds, $condition) = @_;
    my $limit = seconds($seconds);
    my $end = now() + $limit;
    while (1) {
        my $value = $condition->();
        return $value if $value;
        Carp::croak("timed out after $limit s waiting for $what") if now() > $end;
        Time::HiRes::sleep(POLL_SECONDS);
    }
}

1;
