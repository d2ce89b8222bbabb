# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Where things are on this machine: the httpd binary, its modules, ours, and the user it runs as.
package RProxy::Platform;
use strict;
use warnings;
use Cwd ();
use File::Basename qw(dirname);

my %cache;

sub source_directory {
    return $ENV{RPROXY_SRCDIR}
        // Cwd::abs_path(dirname(Cwd::abs_path(__FILE__)) . '/../../..');
}

# Directory of our modules; undef before they are built.
sub build_directory {
    return "$ENV{RPROXY_BUILDDIR}/.libs" if $ENV{RPROXY_BUILDDIR};
    my $source = source_directory();
    return (grep { -d } "$source/build/.libs", "$source/.libs")[0];
}

sub _apxs {
    my ($variable) = @_;
    return $cache{"apxs $variable"} //= do {
        my ($apxs) = grep { -x } $ENV{RPROXY_APXS} // (),
            map { ("$_/apxs", "$_/apxs2") } split(/:/, $ENV{PATH}), '/usr/sbin';
        die "apxs not found: set RPROXY_APXS\n" unless defined $apxs;
        chomp(my $value = `$apxs -q $variable`);
        $value;
    };
}

sub httpd {
    return $ENV{RPROXY_HTTPD} // _apxs('SBINDIR') . '/' . _apxs('PROGNAME');
}

# Names of what is compiled in, as modules are named: log_config, mpm_event, ...
sub _built_in {
    return $cache{built_in} //= do {
        my $httpd = httpd();
        my %names = map { $_ => 1 }
            map { /^\s+(?:mod_)?(\w+)\.c$/ ? $1 : () } `$httpd -l`;
        $names{"mpm_$_"} = delete $names{$_} for grep { $names{$_} } qw(event worker prefork);
        \%names;
    };
}

# The file of a module of httpd, '' if it is compiled in, undef if it is missing.
sub module_file {
    my ($name) = @_;
    return '' if _built_in()->{$name};
    my $file = _apxs('LIBEXECDIR') . "/mod_$name.so";
    return -e $file ? $file : undef;
}

# [name, file] of those of our modules that are built, the core first.
sub our_modules {
    my $directory = build_directory() // return;
    return map { -e "$directory/mod_$_.so" ? [$_, "$directory/mod_$_.so"] : () }
        qw(rproxy rproxy_balancer rproxy_cache);
}

# User and group for the children when the tests run as root, else nothing.
sub unprivileged {
    return if $> != 0;
    my ($group) = (getpwnam 'nobody')[3];
    return unless defined $group;
    return ('nobody', scalar getgrgid $group);
}

1;
