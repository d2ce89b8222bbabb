# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# One request and its response, step by step, the same way over HTTP/1.1 and HTTP/2. What differs is
# in the two subclasses: RProxy::Client::Exchange and RProxy::H2::Exchange. They bring:
#   write(bytes)            sends a piece of the request's body
#   finish(trailers)        ends the request's body
#   next_head(timeout)      the next head, also of an interim response; undef if none came
#   read_some(timeout)      the next bytes of the body as they arrive; '' at its end
#   quiet_for(seconds)      true if nothing of the answer arrives for so long
#   abort                   leaves the request at once: RST of the connection, or of the stream
#   close                   ends the connection
package RProxy::Exchange;
use strict;
use warnings;
use Carp ();
use RProxy::Message;

# Sends what %$options say of the body: body (text, or a sub that returns pieces until undef),
# trailers, expect (the body only after 100), or stream => 1: the test writes and finishes itself.
sub send_body {
    my ($self, $options) = @_;
    return $self if $options->{stream};
    my $body = $options->{body};
    if ($options->{expect}) {
        my $head = $self->next_head;
        return $self if !$head || $head->status ne '100';
    }
    if (ref $body) {
        while (defined(my $piece = $body->())) {
            $self->write($piece) or last;
        }
    }
    elsif (defined $body && length $body) {
        $self->write($body);
    }
    $self->finish(RProxy::Message::pairs($options->{trailers}));
    return $self;
}

# The head of the final response, as a message without body yet.
sub head {
    my ($self, $timeout) = @_;
    while (!$self->{head}) {
        my $head = $self->next_head($timeout);
        last unless $head;
    }
    return $self->{head};
}

# The whole response. Always a message: one that never came has no status.
sub response {
    my ($self, $timeout) = @_;
    my $head = $self->head($timeout);
    return RProxy::Message->new(version => $self->version, interim => $self->{interim},
        error => $self->error // 'no response') unless $head;
    $head->{body} = $self->{taken} . ($self->{unread} // '');
    $self->{unread} = '';
    while ((my $piece = $self->read_some($timeout)) ne '') {
        $head->{body} .= $piece;
    }
    $self->settle($head);
    $head->{interim} = $self->{interim};
    return $head;
}

# Body bytes up to the pattern's end, for streams of events.
sub read_until {
    my ($self, $pattern, $timeout) = @_;
    while (1) {
        return $self->_take($+[0]) if $self->{unread} =~ $pattern;
        $self->_more("match of $pattern", $timeout);
    }
}

sub read_exact {
    my ($self, $length, $timeout) = @_;
    $self->_more("$length bytes", $timeout) while length $self->{unread} < $length;
    return $self->_take($length);
}

sub _more {
    my ($self, $what, $timeout) = @_;
    $self->head($timeout) or Carp::croak("no response while waiting for $what");
    my $unread = $self->{unread};
    $self->{unread} = '';    # else read_some would give it back
    my $piece = $self->read_some($timeout);
    $self->{unread} = $unread . $piece;
    Carp::croak("response ended before $what; unread: $unread") if $piece eq '';
    return;
}

# What was read piecewise still belongs to the body of response().
sub _take {
    my ($self, $length) = @_;
    my $bytes = substr $self->{unread}, 0, $length, '';
    $self->{taken} .= $bytes;
    return $bytes;
}

1;
