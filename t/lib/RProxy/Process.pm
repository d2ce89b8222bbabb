# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Processes that are alive, from /proc: zombies don't count, their sockets are closed already.
package RProxy::Process;
use strict;
use warnings;

sub _alive {
    my ($wanted) = @_;
    my @pids;
    opendir my $proc, '/proc' or die "/proc: $!\n";
    for my $pid (grep { /^\d/ } readdir $proc) {
        open my $fh, '<', "/proc/$pid/stat" or next;
        sysread $fh, my $stat, 4_096 or next;
        my ($state, $parent, $group) = $stat =~ /\) (\S) (\d+) (\d+) [^)]*\z/ or next;
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
