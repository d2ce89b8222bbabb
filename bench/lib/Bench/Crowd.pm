# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The programs that hold a crowd of idle connections: idle, idle_http2 and
# ws_idle.
package Bench::Crowd;
use strict;
use warnings;
use IPC::Open2;
use JSON::PP qw(decode_json);

# Starts one; returns once its connections are open, and says in {opened} what it has printed.
sub gather {
    my ($class, @command) = @_;
    my $pid = open2(my $out, my $in, @command);
    my $self = bless { pid => $pid, in => $in, out => $out, name => $command[0] }, $class;
    $self->{opened} = $self->answer;
    return $self;
}

# Lets each connection do something once more; what has come of it.
sub again {
    my ($self) = @_;
    print {$self->{in}} "again\n";
    close $self->{in};
    my $answer = $self->answer;
    waitpid($self->{pid}, 0);
    return $answer;
}

# A JSON line of the program.
sub answer {
    my ($self) = @_;
    return decode_json(readline($self->{out}) // die "bench: $self->{name} has ended early\n");
}

1;
