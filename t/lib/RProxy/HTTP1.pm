# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/1.x over a stream, for clients and upstreams of tests: heads, and bodies piece by piece.
package RProxy::HTTP1;
use strict;
use warnings;
use RProxy::Message;

my %REASON = (
    100 => 'Continue', 101 => 'Switching Protocols', 103 => 'Early Hints', 200 => 'OK',
    201 => 'Created', 204 => 'No Content', 206 => 'Partial Content', 301 => 'Moved Permanently',
    302 => 'Found', 303 => 'See Other', 304 => 'Not Modified', 307 => 'Temporary Redirect',
    400 => 'Bad Request', 401 => 'Unauthorized', 403 => 'Forbidden', 404 => 'Not Found',
    413 => 'Content Too Large', 417 => 'Expectation Failed', 429 => 'Too Many Requests',
    500 => 'Internal Server Error', 502 => 'Bad Gateway', 503 => 'Service Unavailable',
    504 => 'Gateway Timeout',
);

# The next head, or undef when the peer has gone before it was whole.
sub read_head {
    my ($stream, $timeout) = @_;
    my $raw = $stream->take_until(qr/\A.*?\r?\n\r?\n/s, 'a message head', $timeout);
    return undef unless defined $raw;
    return RProxy::Message->parse($raw) // die "$stream->{label}: not an HTTP/1.x head: $raw\n";
}

# A response's bytes. Content-Length is added where nothing else delimits the body.
sub response_bytes {
    my ($status, $headers, $body, $without_body) = @_;
    my @headers = RProxy::Message::pairs($headers);
    $body //= '';
    my ($code, $reason) = $status =~ /^(\d{3})(?: (.*))?$/s;
    $reason //= $REASON{$code} // 'Status';
    push @headers, ['Content-Length', length $body]
        unless $code =~ /^(?:1..|204|304)$/
        || grep { $_->[0] =~ /^(?:content-length|transfer-encoding)$/i } @headers;
    return "HTTP/1.1 $code $reason\r\n" . field_bytes(@headers) . "\r\n"
        . ($without_body ? '' : $body);
}

sub request_bytes {
    my ($method, $target, $version, @headers) = @_;
    return "$method $target HTTP/$version\r\n" . field_bytes(@headers) . "\r\n";
}

sub field_bytes { return join '', map { "$_->[0]: $_->[1]\r\n" } @_ }

sub chunk_bytes {
    my ($data) = @_;
    return length $data ? sprintf("%x\r\n", length $data) . $data . "\r\n" : '';
}

sub last_chunk_bytes { return "0\r\n" . field_bytes(@_) . "\r\n" }

# A body that is read piece by piece.
package RProxy::HTTP1::Body;
use strict;
use warnings;

sub new {
    my ($class, $stream, $framing, $length) = @_;
    return bless {
        stream   => $stream,
        framing  => $framing,
        left     => $length // 0,    # of the body, or of the current chunk
        started  => 0,               # a chunk's data has begun: its CRLF is to come
        complete => $framing eq 'none' || ($framing eq 'length' && !$length) ? 1 : 0,
        trailers => [],
        error    => undef,
    }, $class;
}

sub _broken {
    my ($self, $error) = @_;
    $self->{error} = $error;
    return '';
}

# The next bytes as they arrive; '' at the end, see complete and error then.
sub next {
    my ($self, $timeout) = @_;
    return '' if $self->{complete} || defined $self->{error};
    my $stream = $self->{stream};
    if ($self->{framing} eq 'close') {
        my $piece = $stream->read_some($timeout);
        return $piece if defined $piece;
        return $self->_broken("connection ended by $stream->{closed}") if $stream->closed ne 'eof';
        $self->{complete} = 1;
        return '';
    }
    if ($self->{framing} eq 'chunked' && !$self->{left}) {
        return '' unless $self->_next_chunk($timeout);
    }
    my $piece = $stream->read_some($timeout);
    return $self->_broken("connection ended by $stream->{closed}, $self->{left} bytes missing")
        unless defined $piece;
    if (length $piece > $self->{left}) {
        $stream->{buffer} = substr($piece, $self->{left}) . $stream->{buffer};
        $piece = substr $piece, 0, $self->{left};
    }
    $self->{left} -= length $piece;
    $self->{complete} = 1 if !$self->{left} && $self->{framing} eq 'length';
    return $piece;
}

# True if a chunk with data follows; reads the trailers after the last one.
sub _next_chunk {
    my ($self, $timeout) = @_;
    my $stream = $self->{stream};
    if ($self->{started}) {
        my $end = $stream->take_exact(2, $timeout);
        return $self->_broken('broke off after a chunk') unless defined $end;
        return $self->_broken('no CRLF after a chunk') if $end ne "\r\n";
    }
    my $line = $stream->take_until(qr/\n/, 'a chunk size', $timeout);
    return $self->_broken('broke off before a chunk') unless defined $line;
    return $self->_broken("bad chunk size: $line") unless $line =~ /^([0-9a-fA-F]+)(?:;.*)?\r\n\z/;
    $self->{left} = hex $1;
    $self->{started} = 1;
    return 1 if $self->{left};
    while (1) {
        my $field = $stream->take_until(qr/\n/, 'trailers', $timeout);
        return $self->_broken('broke off in the trailers') unless defined $field;
        $field =~ s/\r?\n\z//;
        last if $field eq '';
        push @{ $self->{trailers} }, @{ RProxy::Message::parse_fields($field) };
    }
    $self->{complete} = 1;
    return 0;
}

# Reads the rest and stores everything in the message.
sub finish {
    my ($self, $message, $timeout) = @_;
    while ((my $piece = $self->next($timeout)) ne '') {
        $message->{body} .= $piece;
    }
    @$message{qw(complete error trailers framing)} = @$self{qw(complete error trailers framing)};
    return $message;
}

1;
