# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# One connection at a scripted upstream, inside the process that runs its handler: a stream that
# records what it receives, with requests, responses and events on top.
package RProxy::Upstream::Connection;
use strict;
use warnings;
use parent 'RProxy::Stream';
use IO::Socket::SSL;
use RProxy::HTTP1;
use RProxy::Message;
use RProxy::Wait qw(wait_until);

sub new {
    my ($class, %args) = @_;
    my $upstream = $args{upstream};
    my $self = $class->SUPER::new(%args, received => 0, waits => {});
    my $file = "$args{number}.raw";
    $self->{record} = sub {
        my ($bytes) = @_;
        $self->{received} += length $bytes;
        $upstream->_append($file, $bytes) if $upstream->{record};
    };
    return $self;
}

sub number { return $_[0]{number} }

sub accept_tls {
    my ($self, $context) = @_;
    eval { $self->start_tls(SSL_server => 1, SSL_reuse_ctx => $context); 1 } or return 0;
    my $socket = $self->{socket};
    my $ssl = $socket->_get_ssl_object;
    $self->{sni} = scalar $socket->get_servername;
    $self->meta(sni => $self->{sni}, alpn => scalar $socket->alpn_selected,
        tls_version => scalar $socket->get_sslversion,
        session_reused => Net::SSLeay::session_reused($ssl) ? 1 : 0,
        client_cert => scalar $socket->peer_certificate('subject'));
    return 1;
}

sub sni { return $_[0]{sni} }

sub meta {
    my ($self, %facts) = @_;
    $self->{upstream}->_append("$self->{number}.meta",
        join '', map { defined $facts{$_} ? "$_=$facts{$_}\n" : () } sort keys %facts);
    return;
}

sub _gone {
    my ($self) = @_;
    my $closed = $self->SUPER::_gone;
    $self->meta(closed => $closed);
    return $closed;
}

sub _read_now {
    my ($self) = @_;
    my $open = !defined $self->{closed};
    my $got = $self->SUPER::_read_now;
    $self->meta(closed => 'eof') if $open && !$self->{tls} && ($self->{closed} // '') eq 'eof';
    return $got;
}

# ---- reading --------------------------------------------------------------------------------

# The next request's head, or undef when the peer has gone.
sub read_head {
    my ($self, $timeout) = @_;
    my $offset = $self->{received} - length $self->{buffer};
    my $head = RProxy::HTTP1::read_head($self, $timeout) // return undef;
    $self->{upstream}->_append('requests', "$self->{number} $offset\n")
        if $self->{upstream}{record};
    $self->{head} = $head;
    $self->{body} = RProxy::HTTP1::Body->new($self, $head->body_framing);
    return $head;
}

# The next bytes of the body of the request whose head was read; '' at its end.
sub read_body_piece {
    my ($self, $timeout) = @_;
    return $self->{body}->next($timeout);
}

# The rest of the body: the message, with body, trailers and complete.
sub read_body {
    my ($self, $timeout) = @_;
    return $self->{body}->finish($self->{head}, $timeout);
}

# Head and body; sends 100 in between if the request expects it. undef when there is none.
sub read_request {
    my ($self, $timeout) = @_;
    my $head = $self->read_head($timeout) // return undef;
    $self->write("HTTP/1.1 100 Continue\r\n\r\n")
        if lc($head->header('Expect') // '') eq '100-continue';
    return $self->read_body($timeout);
}

# ---- writing --------------------------------------------------------------------------------

sub respond {
    my ($self, $status, $headers, $body, $without_body) = @_;
    return $self->write(RProxy::HTTP1::response_bytes($status, $headers, $body, $without_body));
}

sub write_chunk { return $_[0]->write(RProxy::HTTP1::chunk_bytes($_[1])) }

sub write_last_chunk {
    my ($self, @trailers) = @_;
    return $self->write(RProxy::HTTP1::last_chunk_bytes(RProxy::Message::pairs(\@trailers)));
}

# ---- events ---------------------------------------------------------------------------------

sub notify {
    my ($self, $name) = @_;
    $self->{upstream}->_append('events', "$name\n");
    return;
}

sub wait_for {
    my ($self, $name, $seconds) = @_;
    my $wanted = ++$self->{waits}{$name};
    return wait_until("signal '$name' from the test", $seconds // $self->{timeout},
        sub { return $self->{upstream}->count($name, 'signals') >= $wanted });
}

1;
