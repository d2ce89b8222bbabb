# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Processes that are alive, from /proc: zombies don't count, their sockets are closed already.
package RProxy::Process;
use strict;
use warnings;

sub _alive {
    my ($wanted) = @_;
    my @pids;
    for my $file (glob '/proc/[0-9]*/stat') {
        open my $fh, '<', $file or next;
        my ($pid, $state, $parent, $group)
            = (readline($fh) // '') =~ /^(\d+) \(.*\) (\S) (\d+) (\d+)/s or next;
        push @pids, $pid if $state !~ /[ZX]/ && $wanted->($parent, $group);
    }
    @pids = sort { $a <=> $b } @pids;
    return @pids;
}

# The ids of a process's threads if all of them sleep, else undef.
sub sleeping_threads {
    my ($pid) = @_;
    my @ids;
    for my $file (glob "/proc/$pid/task/[0-9]*/stat") {
        open my $fh, '<', $file or return undef;
        my ($id, $state) = (readline($fh) // '') =~ /^(\d+) \(.*\) (\S)/s or return undef;
        return undef if $state ne 'S';
        push @ids, $id;
    }
    return \@ids;
}

sub children_of {
    my ($pid) = @_;
    return _alive(sub { return $_[0] == $pid });
}

sub members_of_group {
    my ($group) = @_;
    return _alive(sub { return $_[1] == $group });
}

1;
