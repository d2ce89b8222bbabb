# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Thousands of connections to one scripted upstream, in one process: each request without a body
# gets the same bytes after the same delay; where asked, the connection is then a tunnel that
# echoes.
package RProxy::Upstream::Crowd;
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use RProxy::Wait qw(now);

use constant {
    IDLE_SECONDS => 0.5,     # between looks whether the test is still there
    HELD_SECONDS => 0.02,    # between looks whether replies may go
};

# Arguments: listener, reply (bytes), delay (seconds), tunnel, on_request (called for each),
# may_reply (replies wait until it is true).
sub new {
    my ($class, %args) = @_;
    $args{listener}->blocking(0);
    return bless { delay => 0, connections => {}, due => [], %args }, $class;
}

# Serves while $alive says so.
sub run {
    my ($self, $alive) = @_;
    while ($alive->()) {
        my $timeout = IDLE_SECONDS;
        if (@{ $self->{due} }) {
            my $left = $self->{due}[0][0] - now();
            $timeout = $left < 0 ? 0 : $left if $left < $timeout;
            $timeout = HELD_SECONDS if !$self->_may_reply;
        }
        my ($read, $write) = ('', '');
        vec($read, fileno $self->{listener}, 1) = 1;
        while (my ($fd, $connection) = each %{ $self->{connections} }) {
            vec($read, $fd, 1) = 1;
            vec($write, $fd, 1) = 1 if length $connection->{out};
        }
        select $read, $write, undef, $timeout;
        $self->_accept if vec $read, fileno $self->{listener}, 1;
        for my $fd (keys %{ $self->{connections} }) {
            $self->_read($fd) if vec $read, $fd, 1;
            $self->_write($fd) if vec $write, $fd, 1;
        }
        $self->_answer;
    }
    return;
}

sub _accept {
    my ($self) = @_;
    while (my $socket = $self->{listener}->accept) {
        $socket->blocking(0);
        $self->{connections}{ fileno $socket }
            = { socket => $socket, in => '', out => '', tunnel => 0 };
    }
    return;
}

sub _read {
    my ($self, $fd) = @_;
    my $connection = $self->{connections}{$fd} // return;
    my $got = sysread $connection->{socket}, $connection->{in}, 65_536, length $connection->{in};
    return if !defined $got && ($! == EAGAIN || $! == EINTR);
    if (!$got) {
        delete $self->{connections}{$fd};
        return;
    }
    while (!$connection->{tunnel} && $connection->{in} =~ s/\A.*?\r\n\r\n//s) {
        push @{ $self->{due} }, [now() + $self->{delay}, $fd, $connection];
        $connection->{tunnel} = $self->{tunnel};
        $self->{on_request}->();
    }
    $self->_echo($fd) if $connection->{tunnel};
    return;
}

# Bytes that arrive before the reply is due are echoed after it.
sub _echo {
    my ($self, $fd) = @_;
    my $connection = $self->{connections}{$fd};
    return unless $connection->{answered};
    $connection->{out} .= substr $connection->{in}, 0, length $connection->{in}, '';
    return $self->_write($fd);
}

sub _may_reply {
    my ($self) = @_;
    return 1 unless $self->{may_reply};
    return 0 unless $self->{may_reply}->();
    delete $self->{may_reply};
    return 1;
}

sub _answer {
    my ($self) = @_;
    my $due = $self->{due};
    return if @$due && !$self->_may_reply;
    while (@$due && $due->[0][0] <= now()) {
        my (undef, $fd, $connection) = @{ shift @$due };
        next if ($self->{connections}{$fd} // 0) != $connection;
        $connection->{answered} = 1;
        $connection->{out} .= $self->{reply};
        $self->_write($fd);
        $self->_echo($fd) if $connection->{tunnel} && $self->{connections}{$fd};
    }
    return;
}

sub _write {
    my ($self, $fd) = @_;
    my $connection = $self->{connections}{$fd} // return;
    return unless length $connection->{out};
    my $wrote = syswrite $connection->{socket}, $connection->{out};
    if (defined $wrote) {
        substr $connection->{out}, 0, $wrote, '';
    }
    elsif ($! != EAGAIN && $! != EINTR) {
        delete $self->{connections}{$fd};
    }
    return;
}

1;
