# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Header compression of HTTP/2 (RFC 7541): a full decoder, and two encoders. One sends every field
# as a literal, which is all that a test client needs; the other uses the static table and the
# Huffman code, and lets the peer remember every field, but refers to none of them.
package RProxy::HPACK;
use strict;
use warnings;

# RFC 7541 Appendix A
my @STATIC = (undef,
    [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'],
    [':path', '/index.html'], [':scheme', 'http'], [':scheme', 'https'],
    (map { [':status', $_] } 200, 204, 206, 304, 400, 404, 500),
    ['accept-charset', ''], ['accept-encoding', 'gzip, deflate'],
    (map { [$_, ''] } qw(accept-language accept-ranges accept access-control-allow-origin age allow
        authorization cache-control content-disposition content-encoding content-language
        content-length content-location content-range content-type cookie date etag expect expires
        from host if-match if-modified-since if-none-match if-range if-unmodified-since
        last-modified link location max-forwards proxy-authenticate proxy-authorization range
        referer refresh retry-after server set-cookie strict-transport-security transfer-encoding
        user-agent vary via www-authenticate)),
);

# RFC 7541 Appendix B as code lengths of the symbols 0 to 255 and the end of string: the code is
# canonical, so they determine it.
my @LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,
    5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10,
    13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
    7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,
    15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
    6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
);

my %HUFFMAN = _canonical_codes();
my %CODE = reverse %HUFFMAN;
my %DECODED;        # what was decoded before: answers are much alike

sub _canonical_codes {
    my ($code, $length, %symbols) = (0, 0);
    for my $symbol (sort { $LENGTHS[$a] <=> $LENGTHS[$b] || $a <=> $b } 0 .. $#LENGTHS) {
        $code <<= $LENGTHS[$symbol] - $length;
        $length = $LENGTHS[$symbol];
        $symbols{ sprintf '%0*b', $length, $code } = $symbol;
        $code++;
    }
    return %symbols;
}

sub new {
    my ($class) = @_;
    return bless { dynamic => [], size => 0, limit => 4096 }, $class;
}

sub encode {
    my ($class, @fields) = @_;
    return join '', map { "\0" . _encode_string($_->[0]) . _encode_string($_->[1]) } @fields;
}

sub encode_indexed {
    my ($class, @fields) = @_;
    return join '', map {
        my ($name, $value) = @$_;
        my @same = grep { $STATIC[$_][0] eq $name } 1 .. $#STATIC;
        my ($index) = grep { $STATIC[$_][1] eq $value } @same;
        $index ? chr(0x80 | $index)
            : ($same[0] ? chr(0x40 | $same[0]) : "\x40" . _encode_huffman($name))
                . _encode_huffman($value);
    } @fields;
}

sub _encode_huffman {
    my ($bytes) = @_;
    my $bits = join '', map { $CODE{ ord $_ } } split //, $bytes;
    $bits .= '1' x (-length($bits) % 8);
    my $length = _encode_integer(length($bits) / 8, 7);
    return ($length | "\x80") . pack 'B*', $bits;
}

sub _encode_string {
    my ($bytes) = @_;
    return _encode_integer(length $bytes, 7) . $bytes;
}

sub _encode_integer {
    my ($value, $prefix) = @_;
    my $full = (1 << $prefix) - 1;
    return chr $value if $value < $full;
    my $bytes = chr $full;
    $value -= $full;
    while ($value >= 128) {
        $bytes .= chr($value & 127 | 128);
        $value >>= 7;
    }
    return $bytes . chr $value;
}

# A block to [[name, value], ...]; dies when it is malformed.
sub decode {
    my ($self, $block) = @_;
    my @fields;
    while (length $block) {
        my $first = ord $block;
        if ($first & 0x80) {
            push @fields, [@{ $self->_entry(_decode_integer(\$block, 7)) }];
        }
        elsif (($first & 0xe0) == 0x20) {
            $self->{limit} = _decode_integer(\$block, 5);
            $self->_evict;
        }
        else {
            my $index = _decode_integer(\$block, $first & 0x40 ? 6 : 4);
            my $name = $index ? $self->_entry($index)->[0] : _decode_string(\$block);
            my $field = [$name, _decode_string(\$block)];
            push @fields, $field;
            $self->_remember(@$field) if $first & 0x40;
        }
    }
    return \@fields;
}

sub _entry {
    my ($self, $index) = @_;
    my $entry = $index < @STATIC ? $STATIC[$index] : $self->{dynamic}[$index - @STATIC];
    return $entry // die "HPACK: no entry $index\n";
}

sub _remember {
    my ($self, $name, $value) = @_;
    unshift @{ $self->{dynamic} }, [$name, $value];
    $self->{size} += length($name) + length($value) + 32;
    $self->_evict;
    return;
}

sub _evict {
    my ($self) = @_;
    while ($self->{size} > $self->{limit}) {
        my $oldest = pop @{ $self->{dynamic} };
        $self->{size} -= length($oldest->[0]) + length($oldest->[1]) + 32;
    }
    return;
}

sub _decode_integer {
    my ($block, $prefix) = @_;
    my $full = (1 << $prefix) - 1;
    my $value = _take_byte($block) & $full;
    return $value if $value < $full;
    for (my $shift = 0; $shift < 35; $shift += 7) {
        my $byte = _take_byte($block);
        $value += ($byte & 127) << $shift;
        return $value unless $byte & 128;
    }
    die "HPACK: integer too long\n";
}

sub _take_byte {
    my ($block) = @_;
    die "HPACK: block ends early\n" unless length $$block;
    return ord substr $$block, 0, 1, '';
}

sub _decode_string {
    my ($block) = @_;
    my $huffman = ord($$block) & 0x80;
    my $length = _decode_integer($block, 7);
    die "HPACK: string ends early\n" if length $$block < $length;
    my $bytes = substr $$block, 0, $length, '';
    return $huffman ? _decode_huffman($bytes) : $bytes;
}

sub _decode_huffman {
    my ($bytes) = @_;
    return $DECODED{$bytes} if defined $DECODED{$bytes};
    my ($text, $code) = ('', '');
    for my $bit (split //, unpack 'B*', $bytes) {
        $code .= $bit;
        my $symbol = $HUFFMAN{$code};
        next unless defined $symbol;
        die "HPACK: end of string inside a string\n" if $symbol > 255;
        $text .= chr $symbol;
        $code = '';
    }
    die "HPACK: bad padding\n" if length $code > 7 || $code =~ /0/;
    return $DECODED{$bytes} = $text;
}

1;
